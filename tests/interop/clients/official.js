// The official client, with nothing but its base URL set: events and mails by what stands on standard input.
const Plunk = require("@plunk/node").default;

const { baseUrl, key, calls } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const plunk = new Plunk(key, { baseUrl });

async function call([resource, method, body]) {
  try {
    return { answer: await plunk[resource][method](body) };
  } catch (error) {
    return { error: error.constructor.name, message: error.message };
  }
}

(async () => {
  const answers = [];
  for (const one of calls) answers.push(await call(one));
  console.log(JSON.stringify(answers));
})();
