// A custom router for claude-code-router 2 (CUSTOM_ROUTER_PATH): turnwise's policy decides.
//
// Lay the three files routing_policies/gateways/*.mjs and model_capabilities.json beside this one
// (or name their folder in TURNWISE_MODULES), and set:
//   TURNWISE_URL       the service, http://127.0.0.1:4300
//   TURNWISE_KEYS      a file with what GET /v1/gateway/keys answers, brought by a way you trust
//   TURNWISE_STATE     where the last good publication is kept; optional
//   TURNWISE_TOKEN     the service's token; optional
//   TURNWISE_PROVIDER  the name of the provider in config.json; "anthropic" unless set

const { readFileSync } = require("node:fs");
const { join, resolve } = require("node:path");
const { pathToFileURL } = require("node:url");

const FIRST_POLICY_MS = 1000; // what the first request waits for; after it nothing waits
const folder = resolve(process.env.TURNWISE_MODULES || __dirname);
const provider = process.env.TURNWISE_PROVIDER || "anthropic";
const load = (name) => import(pathToFileURL(join(folder, name)));

async function connect() {
  const { PolicyClient } = await load("turnwise_client.mjs");
  const { repair } = await load("turnwise_requests.mjs");
  const keys = JSON.parse(readFileSync(process.env.TURNWISE_KEYS, "utf8")).keys;
  const client = new PolicyClient({
    serviceUrl: process.env.TURNWISE_URL,
    trustedKeys: keys.map((key) => key.public_key),
    gateway: "claude-code-router",
    token: process.env.TURNWISE_TOKEN,
    statePath: process.env.TURNWISE_STATE,
  });
  const table = JSON.parse(readFileSync(join(folder, "model_capabilities.json"), "utf8"));
  const first = client.start();
  await Promise.race([first, new Promise((done) => setTimeout(done, FIRST_POLICY_MS).unref())]);
  return { client, repair, table };
}

let connecting;

async function connected() {
  connecting ??= connect();
  try {
    return await connecting;
  } catch (error) {
    connecting = undefined; // the next request tries again
    throw error;
  }
}

function apply(req, body, betas) {
  for (const name of Object.keys(req.body)) if (!(name in body)) delete req.body[name];
  Object.assign(req.body, body);
  if (betas || req.headers?.["anthropic-beta"]) req.headers["anthropic-beta"] = betas;
}

module.exports = async function route(req) {
  if (typeof req.body?.model !== "string") return null;
  try {
    const { client, repair, table } = await connected();
    // A client may have been told to name models "provider,model".
    const body = { ...req.body, model: req.body.model.split(",").at(-1) };
    const headers = Object.fromEntries(
      Object.entries(req.headers ?? {}).map(([name, value]) => [name.toLowerCase(), String(value)]),
    );
    const { decision, effort } = client.routeBody(body, headers);
    if (decision.routed_model !== decision.requested_model || effort) {
      const betas = headers["anthropic-beta"] ?? "";
      const fitted = repair(body, betas, decision.routed_model, effort, table);
      if (fitted === null) {
        decision.routed_model = decision.requested_model;
        decision.rule_id = "guard:untranslatable";
      } else {
        apply(req, fitted.body, fitted.betas);
        decision.fixes = fitted.fixes;
      }
    }
    client.report(decision);
    return `${provider},${decision.routed_model}`;
  } catch (error) {
    console.error(`turnwise: the request keeps its model: ${error.message}`);
    return null;
  }
};
