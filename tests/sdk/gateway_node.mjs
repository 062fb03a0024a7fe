// The official Node SDKs through a running gateway, to each provider that can serve what they ask.
//
//   node gateway_node.mjs http://127.0.0.1:PORT
//
// Nothing of the SDKs is changed but the base URL. Prints one line a failure and at the end `N passed, N failed`.
import assert from 'node:assert/strict';
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';

const gateway = process.argv[2]?.replace(/\/$/, '');
if (!gateway) {
  console.error('usage: node gateway_node.mjs http://127.0.0.1:PORT');
  process.exit(2);
}

const settings = { apiKey: 'k', maxRetries: 0, timeout: 20_000 };
const openai = new OpenAI({ ...settings, baseURL: `${gateway}/v1` });
const retrying = new OpenAI({ apiKey: 'k', timeout: 20_000, baseURL: `${gateway}/v1` });
const anthropic = new Anthropic({ ...settings, baseURL: gateway });

const models = { openai: 'gpt-5.2', anthropic: 'claude-opus-5-5', google: 'gemini-3.5-flash', grok: 'grok-4.5' };
const messages = [{ role: 'user', content: 'hi' }];
const schema = {
  type: 'object',
  properties: { city: { type: 'string' }, days: { type: 'integer' } },
  required: ['city', 'days'],
  additionalProperties: false,
};
const pixel = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';

// Each is made once for each provider.
const ofEach = {
  async chat(model, provider) {
    const { data, response } = await openai.chat.completions.create({ model, messages }).withResponse();
    assert.equal(data.choices[0].message.content, 'You said: hi');
    assert.equal(data.model, model);
    assert.equal(response.headers.get('x-omega-provider'), provider);
  },

  async chat_stream(model) {
    const stream = openai.chat.completions.stream({ model, messages, stream_options: { include_usage: true } });
    const final = await stream.finalChatCompletion();
    assert.equal(final.choices[0].message.content, 'You said: hi');
    assert.ok(final.usage.completion_tokens > 0);
  },

  async chat_tools(model) {
    const tools = [{ type: 'function', function: { name: 'weather', parameters: schema } }];
    const talk = [{ role: 'user', content: 'call:weather' }];
    const first = await openai.chat.completions.create({ model, messages: talk, tools });
    const call = first.choices[0].message.tool_calls[0];
    assert.deepEqual(JSON.parse(call.function.arguments), { city: 'text', days: 1 });
    talk.push(first.choices[0].message, { role: 'tool', tool_call_id: call.id, content: 'sunny' });
    const second = await openai.chat.completions.create({ model, messages: talk, tools });
    assert.match(second.choices[0].message.content, /sunny/);
  },

  async chat_tools_stream(model) {
    const tools = [{ type: 'function', function: { name: 'weather', parameters: schema } }];
    const talk = [{ role: 'user', content: 'call:weather' }];
    const final = await openai.chat.completions.stream({ model, messages: talk, tools }).finalChatCompletion();
    assert.equal(JSON.parse(final.choices[0].message.tool_calls[0].function.arguments).days, 1);
  },

  async chat_structured_output_and_image(model) {
    const content = [
      { type: 'text', text: 'hi' },
      { type: 'image_url', image_url: { url: `data:image/png;base64,${pixel}` } },
    ];
    const response_format = { type: 'json_schema', json_schema: { name: 'answer', schema, strict: true } };
    const answer = await openai.chat.completions.create({ model, messages: [{ role: 'user', content }], response_format });
    assert.deepEqual(JSON.parse(answer.choices[0].message.content), { city: 'text', days: 1 });
  },

  async responses(model) {
    const answer = await openai.responses.create({ model, input: 'hi' });
    assert.equal(answer.output_text, 'You said: hi');
    const final = await openai.responses.stream({ model, input: 'hi' }).finalResponse();
    assert.equal(final.output_text, 'You said: hi');
    assert.ok(final.usage.output_tokens > 0);
  },

  async messages(model) {
    const answer = await anthropic.messages.create({ model, max_tokens: 50, messages });
    assert.equal(answer.content[0].text, 'You said: hi');
    assert.equal(answer.stop_reason, 'end_turn');
    const final = await anthropic.messages.stream({ model, max_tokens: 50, messages }).finalMessage();
    assert.equal(final.content[0].text, 'You said: hi');
    assert.ok(final.usage.output_tokens > 0);
  },

  async messages_tools(model) {
    const tools = [{ name: 'weather', input_schema: schema }];
    const talk = [{ role: 'user', content: 'call:weather' }];
    const first = await anthropic.messages.stream({ model, max_tokens: 500, messages: talk, tools }).finalMessage();
    const call = first.content.find((block) => block.type === 'tool_use');
    assert.deepEqual(call.input, { city: 'text', days: 1 });
    const result = { type: 'tool_result', tool_use_id: call.id, content: 'sunny' };
    talk.push({ role: 'assistant', content: first.content }, { role: 'user', content: [result] });
    const second = await anthropic.messages.create({ model, max_tokens: 500, messages: talk, tools });
    assert.match(second.content[0].text, /sunny/);
  },

  async messages_image_and_count(model) {
    const image = { type: 'image', source: { type: 'base64', media_type: 'image/png', data: pixel } };
    const content = [{ type: 'text', text: 'what is this' }, image];
    const talk = [{ role: 'user', content }];
    const answer = await anthropic.messages.create({ model, max_tokens: 50, messages: talk });
    assert.ok(answer.content[0].text.includes('what is this'));
    const counted = await anthropic.messages.countTokens({ model, messages: talk });
    assert.ok(counted.input_tokens > 0);
  },
};

const checks = {
  async embeddings_in_either_form() {
    for (const model of ['text-embedding-3-small', 'gemini-embedding-001']) {
      // The SDK asks for base64 by itself and reads nothing else then.
      const answer = await openai.embeddings.create({ model, input: 'a', dimensions: 8 });
      assert.equal(answer.data[0].embedding.length, 8);
      assert.equal(typeof answer.data[0].embedding[0], 'number');
    }
  },

  async models() {
    const names = [];
    for await (const model of openai.models.list()) names.push(model.id);
    for await (const model of anthropic.models.list()) names.push(model.id);
    assert.equal(names.filter((name) => name === 'gpt-5.2').length, 2);
  },

  async errors_of_openai() {
    const expected = {
      'gpt-5.2+forbidden': OpenAI.PermissionDeniedError,
      'gpt-5.2+invalid-request': OpenAI.BadRequestError,
      'nobody-knows-this': OpenAI.NotFoundError,
      'gpt-5.2+insufficient-quota': OpenAI.RateLimitError,
    };
    for (const [model, kind] of Object.entries(expected)) {
      await assert.rejects(openai.chat.completions.create({ model, messages }), (error) => {
        assert.equal(error.constructor, kind, `${model}: ${error}`);
        assert.match(error.requestID, /^req_/);
        return true;
      });
    }
  },

  async errors_of_anthropic() {
    const create = (model) => anthropic.messages.create({ model, max_tokens: 9, messages });
    await assert.rejects(create('claude-opus-5-5+forbidden'), (error) => {
      assert.equal(error.constructor, Anthropic.PermissionDeniedError);
      assert.equal(error.error.error.type, 'permission_error');
      return true;
    });
  },

  async a_failure_is_retried_here_and_not_once_more_by_the_sdk() {
    await assert.rejects(retrying.chat.completions.create({ model: 'gpt-5.2+server-error', messages }), (error) => {
      assert.equal(error.headers.get('x-should-retry'), 'false');
      assert.equal(error.headers.get('x-omega-attempts'), '2');
      return true;
    });
  },

  async a_fallback_answers() {
    const body = { model: 'gpt-5.2+overloaded', messages, fallbacks: ['claude-opus-5-5'] };
    const answer = await openai.chat.completions.create(body);
    assert.equal(answer.model, 'claude-opus-5-5');
  },

  async a_cut_stream_raises_in_every_sdk() {
    const read = async (stream) => {
      for await (const _ of await stream);
    };
    const chat = { model: 'gpt-5.2+cut-after:2', messages, stream: true };
    await assert.rejects(read(openai.chat.completions.create(chat)), OpenAI.APIError);
    for (const model of ['gpt-5.2+cut-after:2', 'claude-opus-5-5+cut-after:2']) {
      await assert.rejects(read(openai.responses.create({ model, input: 'hi', stream: true })), OpenAI.APIError);
      const asked = { model, max_tokens: 50, messages, stream: true };
      await assert.rejects(read(anthropic.messages.create(asked)), Anthropic.APIError);
    }
  },
};

const all = Object.entries(checks);
for (const [name, check] of Object.entries(ofEach)) {
  for (const [provider, model] of Object.entries(models)) {
    all.push([`${name}[${provider}]`, () => check(model, provider)]);
  }
}
let failed = 0;
for (const [name, check] of all) {
  try {
    await check();
  } catch (error) {
    failed += 1;
    console.log(`FAIL ${name}\n${error.stack}`);
  }
}
console.log(`${all.length - failed} passed, ${failed} failed`);
process.exitCode = failed ? 1 : 0;
