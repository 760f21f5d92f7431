// OpenAI's own JavaScript client against an endpoint: node client.mjs URL QUESTION. Exit code 3: the package is not there.
import { createRequire } from "node:module";

let OpenAI;
try {
  OpenAI = createRequire(import.meta.url)("openai").default; // require looks into NODE_PATH, import does not
} catch {
  process.exit(3);
}
const [url, question] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url, apiKey: "none", maxRetries: 0, timeout: 60_000 });
const messages = [{ role: "user", content: question }];
const status = (promise) => promise.then(() => 200, (error) => error.status);

const models = [];
for await (const model of await client.models.list()) models.push(model.id);
const whole = await client.chat.completions.create({ model: "mine", messages });
const stream = await client.chat.completions.create({
  model: "mine", messages, stream: true, stream_options: { include_usage: true },
});
let streamed = "", usage = 0;
for await (const chunk of stream) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage?.completion_tokens ?? usage;
}
console.log(JSON.stringify({
  models, streamed, usage,
  whole: whole.choices[0].message.content,
  file: whole.mipo_sources[0].file,
  unknown: await status(client.chat.completions.create({ model: "other", messages })),
  wrong: await status(client.chat.completions.create({ model: "mine", messages, n: 2 })),
}));
