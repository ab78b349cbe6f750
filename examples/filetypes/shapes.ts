export type Shape =
  | { kind: 'circle'; radius: number }
  | { kind: 'rectangle'; width: number; height: number };

export interface Canvas {
  readonly name: string;
  draw(shape: Shape): void;
}

export function area(shape: Shape): number {
  switch (shape.kind) {
    case 'circle':
      return Math.PI * shape.radius ** 2;
    case 'rectangle':
      return shape.width * shape.height;
    default: {
      const never: never = shape;
      throw new Error(`unknown shape ${JSON.stringify(never)}`);
    }
  }
}

export class Sheet implements Canvas {
  private shapes: Shape[] = [];
  constructor(public readonly name: string) {}
  draw(shape: Shape): void {
    this.shapes.push(shape);
  }
  total(): number {
    return this.shapes.reduce((sum: number, shape: Shape) => sum + area(shape), 0);
  }
}
