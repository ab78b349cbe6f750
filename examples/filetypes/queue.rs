use std::collections::BinaryHeap;
use std::cmp::Reverse;

/// Jobs ordered by due time, ties by id.
#[derive(Debug, Default)]
pub struct Schedule {
    heap: BinaryHeap<Reverse<(u64, u32)>>,
}

impl Schedule {
    pub fn push(&mut self, due_ms: u64, id: u32) {
        self.heap.push(Reverse((due_ms, id)));
    }

    pub fn due(&mut self, now_ms: u64) -> Option<u32> {
        match self.heap.peek() {
            Some(Reverse((due, _))) if *due <= now_ms => self.heap.pop().map(|Reverse((_, id))| id),
            _ => None,
        }
    }
}

fn main() {
    let mut schedule = Schedule::default();
    schedule.push(30, 1);
    schedule.push(10, 2);
    while let Some(id) = schedule.due(20) {
        println!("job {id} is due");
    }
    let left: Vec<_> = schedule.heap.into_sorted_vec();
    println!("{left:?}");
}
