// Run recorded messages in the sandbox's TVM:
// node replay.mjs <modules> < {config, steps} > [{transaction, account, exit_code}].
// Of a message that was refused the hashes are empty; the exit code is that of refused ones, null if no code was asked.
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
                  exit_code: null,
              }
            : { transaction: '', account: '', exit_code: result.vmResults?.vmExitCode ?? null },
    );
}
console.log(JSON.stringify(found));
