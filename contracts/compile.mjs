// Compile contracts: node compile.mjs <modules> <folder of sources> > one JSON object on stdout, contract by contract.
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';

// Modules are looked up where npm ci put them, not beside this file.
const require = createRequire(path.resolve(process.argv[2], 'package.json'));
const { runTolkCompiler, getTolkCompilerVersion } = require('@ton/tolk-js');
const sources = path.resolve(process.argv[3]);

const made = { version: await getTolkCompilerVersion(), contracts: {} };
for (const file of fs.readdirSync(sources).filter((name) => name.endsWith('.tolk')).sort()) {
    const result = await runTolkCompiler({
        entrypointFileName: file,
        fsReadCallback: (name) => fs.readFileSync(path.join(sources, name), 'utf8'),
        optimizationLevel: 2,
    });
    if (result.status !== 'ok') {
        console.error(`${file}: ${result.message}`);
        process.exit(1);
    }
    made.contracts[path.basename(file, '.tolk')] = { boc: result.codeBoc64, hash: result.codeHashHex.toLowerCase() };
}
console.log(JSON.stringify(made));
