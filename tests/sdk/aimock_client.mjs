// Somebody else's idea of the protocols: OMEGA's client against @copilotkit/aimock, an emulator we did not write.
//
//   node aimock_client.mjs PATH_TO_OMEGA
//
// Drives the program (`omega chat --json`), so what is checked is everything between the shell and the wire.
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const omega = process.argv[2];
if (!omega) {
  console.error('usage: node aimock_client.mjs PATH_TO_OMEGA');
  process.exit(2);
}

const long = 'A long answer, '.repeat(40);
const limited = { error: { message: 'Rate limit reached', type: 'requests', code: 'rate_limit_exceeded' }, status: 429 };
const broke = { error: { message: 'You exceeded your current quota', type: 'insufficient_quota', code: 'insufficient_quota' }, status: 429 };
const fixtures = [
  { match: { userMessage: 'hello aimock' }, response: { content: 'Hello from somewhere else.' } },
  { match: { userMessage: 'limited once', sequenceIndex: 0 }, response: limited },
  { match: { userMessage: 'limited once' }, response: { content: 'There you are.' } },
  { match: { userMessage: 'overloaded once', sequenceIndex: 0 }, response: { error: { message: 'Overloaded', type: 'overloaded_error' }, status: 529 } },
  { match: { userMessage: 'overloaded once' }, response: { content: 'Back again.' } },
  { match: { userMessage: 'no money' }, response: broke },
  { match: { userMessage: 'bad request' }, response: { error: { message: 'No.', type: 'invalid_request_error', code: 'invalid_value' }, status: 400 } },
  { match: { userMessage: 'cut short', model: 'gpt-5.2' }, response: { content: long }, chunkSize: 10, truncateAfterChunks: 4 },
  { match: { userMessage: 'cut short' }, response: { content: 'Whole, from the fallback.' } },
];

const directory = mkdtempSync(join(tmpdir(), 'omega-aimock-'));
const port = await freePort();
const base = `http://127.0.0.1:${port}`;
writeFileSync(join(directory, 'fixtures.json'), JSON.stringify({ fixtures }));
writeFileSync(
  join(directory, 'resilience.yaml'),
  `providers:
  openai: {base_url: "${base}/v1"}
  anthropic: {base_url: "${base}"}
  google: {base_url: "${base}", api_version: v1beta}
backoff: {base_delay: 0.05, max_delay: 0.2}
`,
);
const server = spawn(
  process.execPath,
  [fileURLToPath(new URL('node_modules/@copilotkit/aimock/dist/cli.js', import.meta.url)), '-p', String(port), '-f', join(directory, 'fixtures.json'), '--log-level', 'warn'],
  { stdio: ['ignore', 'inherit', 'inherit'] },
);

let passed = 0;
let failed = 0;
try {
  await ready();
  for (const model of ['gpt-5.2', 'claude-sonnet-5-5', 'gemini-3.5-flash']) {
    for (const flags of [[], ['--no-stream']]) {
      check(`${model} ${flags.join(' ')} answers`, ask(model, 'hello aimock', ...flags), ({ code, answer }) =>
        code === 0 && answer.answer === 'Hello from somewhere else.' && answer.attempts.length === 1);
    }
  }
  check('a 429 is waited out and tried again', ask('gpt-5.2', 'limited once'), ({ code, answer, took }) =>
    code === 0 && answer.answer === 'There you are.' && answer.attempts.length === 2 && took >= 1000);
  check('a 529 is tried again', ask('claude-sonnet-5-5', 'overloaded once'), ({ code, answer }) =>
    code === 0 && answer.answer === 'Back again.' && answer.attempts.length === 2);
  check('an exhausted quota is asked once and named', ask('gpt-5.2', 'no money'), ({ code, stderr }) =>
    code === 5 && stderr.includes('insufficient_quota'));
  check('an invalid request is asked once', ask('gpt-5.2', 'bad request'), ({ code }) => code === 5);
  check('a stream that is cut is no answer', ask('gpt-5.2', 'cut short'), ({ code, stdout }) =>
    code !== 0 && !stdout.includes(long));
  check('a stream that is cut is answered by the fallback', ask('gpt-5.2', 'cut short', '--no-stream', '--fallback', 'claude-sonnet-5-5'), ({ code, answer }) =>
    code === 0 && answer.answer === 'Whole, from the fallback.' && answer.provider === 'anthropic');
} finally {
  server.kill();
  rmSync(directory, { recursive: true });
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;

function ask(model, prompt, ...flags) {
  const start = process.hrtime.bigint();
  const child = spawnSync(omega, ['--config', join(directory, 'resilience.yaml'), 'chat', '--json', '--model', model, ...flags, prompt], {
    encoding: 'utf8',
    timeout: 60_000,
    env: { ...process.env, OPENAI_API_KEY: 'k', ANTHROPIC_API_KEY: 'k', GEMINI_API_KEY: 'k', GOOGLE_API_KEY: '', NO_PROXY: '127.0.0.1' },
  });
  const took = Number(process.hrtime.bigint() - start) / 1e6;
  let answer = null;
  try {
    answer = JSON.parse(child.stdout);
  } catch {}
  return { code: child.status, stdout: child.stdout, stderr: child.stderr, answer, took };
}

function check(name, result, holds) {
  let ok = false;
  try {
    ok = holds(result);
  } catch {}
  console.log(`${ok ? 'ok  ' : 'FAIL'} ${name}`);
  if (!ok) console.log(JSON.stringify(result, null, 2));
  ok ? passed++ : failed++;
}

async function ready() {
  for (const deadline = Date.now() + 30_000; Date.now() < deadline; ) {
    try {
      await fetch(`${base}/health`);
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
  throw new Error('aimock did not start within 30 s');
}

function freePort() {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.listen(0, '127.0.0.1', () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}
