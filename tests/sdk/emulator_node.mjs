// The official Node SDKs against a running emulator: chat, streams, tools, structured output, errors.
//
//   node emulator_node.mjs http://127.0.0.1:PORT
//
// Prints one line a failure and at the end `N passed, N failed`; exits with 1 if anything failed.
import assert from 'node:assert/strict';
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';

const address = process.argv[2]?.replace(/\/$/, '');
if (!address) {
  console.error('usage: node emulator_node.mjs http://127.0.0.1:PORT');
  process.exit(2);
}

const settings = { apiKey: 'k', maxRetries: 0, timeout: 10_000 };
const openai = new OpenAI({ ...settings, baseURL: `${address}/openai/v1` });
const grok = new OpenAI({ ...settings, baseURL: `${address}/grok/v1` });
const anthropic = new Anthropic({ ...settings, baseURL: `${address}/anthropic` });

const messages = [{ role: 'user', content: 'hi' }];
const schema = {
  type: 'object',
  properties: { city: { type: 'string' }, days: { type: 'integer' } },
  required: ['city', 'days'],
};
const openaiTool = { type: 'function', function: { name: 'weather', parameters: schema } };
const anthropicTool = { name: 'weather', input_schema: schema };
const fault = (name) => ({ headers: { 'x-emulate-fault': name } });

const checks = {
  async openai_chat() {
    const { data, response } = await openai.chat.completions.create({ model: 'gpt-5.2', messages }).withResponse();
    assert.equal(data.choices[0].message.content, 'You said: hi');
    assert.equal(data.usage.total_tokens, data.usage.prompt_tokens + data.usage.completion_tokens);
    assert.match(response.headers.get('x-request-id'), /^req_/);
  },

  async openai_chat_stream() {
    const stream = await openai.chat.completions.create({
      model: 'gpt-5.2',
      messages,
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = '';
    let usage;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? '';
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, 'You said: hi');
    assert.equal(usage.completion_tokens, 3);
  },

  async openai_tool_round_trip() {
    const talk = [{ role: 'user', content: 'call:weather' }];
    const ask = () => openai.chat.completions.create({ model: 'gpt-5.2', messages: talk, tools: [openaiTool] });
    const first = await ask();
    const call = first.choices[0].message.tool_calls[0];
    assert.deepEqual(JSON.parse(call.function.arguments), { city: 'text', days: 1 });
    talk.push(first.choices[0].message, { role: 'tool', tool_call_id: call.id, content: 'sunny' });
    assert.equal((await ask()).choices[0].message.content, 'The tool answered: sunny');
  },

  async openai_tool_stream() {
    const stream = openai.chat.completions.stream({
      model: 'gpt-5.2',
      messages,
      tools: [openaiTool],
      tool_choice: 'required',
    });
    const final = await stream.finalChatCompletion();
    assert.equal(JSON.parse(final.choices[0].message.tool_calls[0].function.arguments).days, 1);
  },

  async openai_structured_output() {
    const answer = await openai.chat.completions.create({
      model: 'gpt-5.2',
      messages,
      response_format: { type: 'json_schema', json_schema: { name: 'answer', schema, strict: true } },
    });
    assert.deepEqual(JSON.parse(answer.choices[0].message.content), { city: 'text', days: 1 });
  },

  async openai_responses() {
    const answer = await openai.responses.create({ model: 'gpt-5.2', input: 'hi' });
    assert.equal(answer.output_text, 'You said: hi');
    const stream = openai.responses.stream({ model: 'gpt-5.2', input: 'hi' });
    const final = await stream.finalResponse();
    assert.equal(final.output_text, 'You said: hi');
    assert.equal(final.usage.output_tokens, 3);
  },

  async openai_embeddings_and_models() {
    const answer = await openai.embeddings.create({ model: 'text-embedding-3-small', input: 'a', dimensions: 8 });
    assert.equal(answer.data[0].embedding.length, 8);
    const length = Math.hypot(...answer.data[0].embedding);
    assert.ok(Math.abs(length - 1) < 1e-5, `length ${length}`);
    const names = [];
    for await (const model of openai.models.list()) names.push(model.id);
    assert.ok(names.includes('gpt-5.2'));
  },

  async openai_errors() {
    const expected = {
      'bad-key': OpenAI.AuthenticationError,
      forbidden: OpenAI.PermissionDeniedError,
      'model-not-found': OpenAI.NotFoundError,
      conflict: OpenAI.ConflictError,
      unprocessable: OpenAI.UnprocessableEntityError,
      'rate-limited': OpenAI.RateLimitError,
      'server-error': OpenAI.InternalServerError,
      'bad-gateway-html': OpenAI.InternalServerError,
      overloaded: OpenAI.InternalServerError,
      'context-length': OpenAI.BadRequestError,
      'reset-before-headers': OpenAI.APIConnectionError,
      'close-before-headers': OpenAI.APIConnectionError,
    };
    for (const [name, kind] of Object.entries(expected)) {
      await assert.rejects(openai.chat.completions.create({ model: 'gpt-5.2', messages }, fault(name)), kind, name);
    }
    await assert.rejects(
      openai.chat.completions.create({ model: 'gpt-5.2', messages }, fault('insufficient-quota')),
      (error) => error.type === 'insufficient_quota' && error.code === 'credit_balance_exhausted',
    );
  },

  async openai_broken_streams() {
    const consume = async (name) => {
      const stream = await openai.chat.completions.create({ model: 'gpt-5.2', messages, stream: true }, fault(name));
      let events = 0;
      for await (const chunk of stream) events += chunk.choices[0]?.delta.content ? 1 : 0;
      return events;
    };
    await assert.rejects(consume('error-in-stream:1'), OpenAI.APIError);
    await assert.rejects(consume('malformed-chunk:1'), SyntaxError);
    await assert.rejects(consume('cut-after:1'));
    // The SDK does not notice a missing terminator: that is why a client of ours must.
    assert.equal(await consume('end-after:2'), 2);
  },

  async openai_retries_until_it_is_served() {
    const answer = await openai.chat.completions.create(
      { model: 'gpt-5.2', messages },
      { ...fault('rate-limited-ms:0.05,times=2,id=node-retries'), maxRetries: 2 },
    );
    assert.equal(answer.choices[0].message.content, 'You said: hi');
  },

  async anthropic_message() {
    const { data, response } = await anthropic.messages
      .create({ model: 'claude-opus-5-5', max_tokens: 50, messages })
      .withResponse();
    assert.equal(data.content[0].text, 'You said: hi');
    assert.equal(data.stop_reason, 'end_turn');
    assert.match(response.headers.get('request-id'), /^req_/);
    const counted = await anthropic.messages.countTokens({ model: 'claude-opus-5-5', messages });
    assert.equal(counted.input_tokens, data.usage.input_tokens);
  },

  async anthropic_stream() {
    const stream = anthropic.messages.stream({ model: 'claude-opus-5-5', max_tokens: 50, messages });
    const final = await stream.finalMessage();
    assert.equal(final.content[0].text, 'You said: hi');
    assert.equal(final.usage.output_tokens, 3);
  },

  async anthropic_tool_round_trip() {
    const talk = [{ role: 'user', content: 'call:weather' }];
    const ask = () =>
      anthropic.messages.stream({ model: 'claude-opus-5-5', max_tokens: 99, messages: talk, tools: [anthropicTool] });
    const first = await ask().finalMessage();
    assert.equal(first.stop_reason, 'tool_use');
    assert.deepEqual(first.content[0].input, { city: 'text', days: 1 });
    talk.push({ role: 'assistant', content: first.content });
    talk.push({
      role: 'user',
      content: [{ type: 'tool_result', tool_use_id: first.content[0].id, content: 'sunny' }],
    });
    assert.equal((await ask().finalMessage()).content[0].text, 'The tool answered: sunny');
  },

  async anthropic_structured_output() {
    const answer = await anthropic.messages.create({
      model: 'claude-opus-5-5',
      max_tokens: 50,
      messages,
      output_config: { format: { type: 'json_schema', schema } },
    });
    assert.deepEqual(JSON.parse(answer.content[0].text), { city: 'text', days: 1 });
  },

  async anthropic_errors() {
    const expected = {
      'bad-key': 401,
      'payment-required': 402,
      forbidden: 403,
      'model-not-found': 404,
      'too-large': 413,
      'rate-limited': 429,
      'server-error': 500,
      overloaded: 529,
      'spend-limit:credit-balance': 400,
    };
    for (const [name, status] of Object.entries(expected)) {
      await assert.rejects(
        anthropic.messages.create({ model: 'claude-opus-5-5', max_tokens: 9, messages }, fault(name)),
        (error) => error instanceof Anthropic.APIError && error.status === status,
        name,
      );
    }
    const limited = anthropic.messages.create({ model: 'claude-opus-5-5', max_tokens: 9, messages }, fault('rate-limited'));
    await assert.rejects(limited, Anthropic.RateLimitError);
  },

  async anthropic_broken_streams() {
    const consume = async (name) => {
      const stream = await anthropic.messages.create(
        { model: 'claude-opus-5-5', max_tokens: 50, messages, stream: true },
        fault(name),
      );
      let text = '';
      for await (const event of stream) if (event.type === 'content_block_delta') text += event.delta.text;
      return text;
    };
    await assert.rejects(consume('error-in-stream:1'), Anthropic.APIError);
    assert.equal(await consume('end-after:2'), 'You said');
  },

  async grok_chat() {
    const answer = await grok.chat.completions.create({ model: 'grok-4-fast-reasoning', messages });
    const { usage } = answer;
    const reasoning = usage.completion_tokens_details.reasoning_tokens;
    assert.ok(reasoning > 0);
    assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens + reasoning);
    await assert.rejects(
      grok.chat.completions.create({ model: 'grok-4.6', messages }, fault('bad-key')),
      (error) => error instanceof OpenAI.BadRequestError && /Incorrect API key/.test(error.message),
    );
  },
};

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
  } catch (error) {
    failed += 1;
    console.error(`FAILED ${name}`);
    console.error(error);
  }
}
console.log(`${Object.keys(checks).length - failed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
