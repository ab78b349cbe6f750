// Run recorded messages in the sandbox's TVM: node replay.mjs <modules> < {config, steps} > [{transaction, account} | {refused}].
// Each step brings the account before it, so that one difference does not hide the next.
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';

const require = createRequire(path.resolve(process.argv[2], 'package.json'));
const { Executor } = require('@ton/sandbox');
const { Cell } = require('@ton/core');

const { config, steps } = JSON.parse(fs.readFileSync(0, 'utf8'));
const executor = await Executor.create();
const found = [];
for (const step of steps) {
    const { result } = await executor.runTransaction({
        config,
        libs: null,
        verbosity: 'short',
        shardAccount: step.account,
        message: Cell.fromBase64(step.message),
        now: step.now_s,
        lt: BigInt(step.lt),
        randomSeed: Buffer.alloc(32),
        ignoreChksig: false,
        debugEnabled: false,
    });
    found.push(
        result.success
            ? {
                  transaction: Cell.fromBase64(result.transaction).hash().toString('hex'),
                  account: Cell.fromBase64(result.shardAccount).hash().toString('hex'),
              }
            : { transaction: '', account: '' },
    );
}
console.log(JSON.stringify(found));
