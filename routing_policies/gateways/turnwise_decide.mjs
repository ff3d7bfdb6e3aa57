// The gateway side of turnwise in JavaScript (Node 20 or newer), without dependencies.
//
// What each function does is specified in docs/policies.md; the module holds to every vector of
// docs/gateways.md. Policies, publications, requests and routes are the JSON documents themselves.

import { createHash, createPublicKey, verify as verifySignature } from "node:crypto";

const BUCKETS = 10_000;
const PAYLOAD_TYPE = "application/vnd.turnwise.publication+json";
const MAX_ENVELOPE_BYTES = 512 * 1024;
const MAX_RULES = 1000;
const MEASURES = ["total_input_tokens", "uncached_input_tokens", "new_tokens", "prompt_tokens"];
const UNITS = ["session", "agent", "user_turn", "request"];
const NUMBER_FIELDS = [...MEASURES, "input_tokens", "turn_index"];
const TEXT_FIELDS = [
  "requested_model", "request_class", "agent_name", "org_path", "repository", "effort",
];

/** A refusal; `kind` is BadInput, Refused, Conflict or Corrupt. */
export class TurnwiseError extends Error {
  constructor(kind, message) {
    super(message);
    this.name = "TurnwiseError";
    this.kind = kind;
  }
}

// Buckets and arms

/** A session's bucket, 0 to 9999. The vector is bucketOf("s1", "abc") === 9688. */
export function bucketOf(salt, key) {
  const digest = createHash("sha1").update(`${salt}.${key}`, "utf8").digest();
  return digest.readUInt32BE(0) % BUCKETS;
}

/** The arm of a session (one of publication.arms) and its bucket. */
export function chooseArm(publication, sessionId) {
  const bucket = bucketOf(publication.salt, sessionId);
  let edge = 0;
  for (const arm of publication.arms) {
    edge += arm.weight;
    if (bucket < edge) return { arm, bucket };
  }
  return { arm: publication.arms.at(-1), bucket };
}

// Decisions

/** The route of one request; `previous` is the kept route of its unit, or null. */
export function decide(policy, request, previous = null) {
  let route;
  if (previous && isKept(policy, request, previous)) {
    route = previous.as_requested ? { ...previous, model: request.requested_model } : previous;
  } else {
    route = match(policy, request);
  }
  const ceilings = policy.guards?.max_context_tokens ?? {};
  if (Object.hasOwn(ceilings, route.model) && request.total_input_tokens > ceilings[route.model]) {
    route = routeTo("", "guard:max_context_tokens", "", request);
  }
  const run = previous?.model === route.model ? (previous.run_requests ?? 1) + 1 : 1;
  return { ...route, run_requests: run };
}

/** What a route is kept under: the session, and "" or the agent. */
export function unitKey(policy, request) {
  if (request.request_class === "auxiliary") return [request.session_id, "~auxiliary"];
  if (policy.unit === "session") return [request.session_id, ""];
  return [request.session_id, request.agent_id];
}

export function locksToolLoops(policy) {
  return policy.guards?.tool_loop_lock ?? true;
}

function isKept(policy, request, previous) {
  if (policy.unit === "session" || policy.unit === "agent") return true;
  if ((previous.run_requests ?? 1) < (policy.guards?.min_run_requests ?? 0)) return true;
  if (locksToolLoops(policy) && request.in_tool_loop) return true;
  return policy.unit === "user_turn" && !request.starts_user_turn;
}

function match(policy, request) {
  for (const rule of policy.rules) {
    if ((rule.when ?? []).every((condition) => holds(policy, condition, request))) {
      return routeTo(rule.set.model ?? "", rule.id, rule.set.effort ?? "", request);
    }
  }
  return routeTo(policy.default?.model ?? "", "default", "", request);
}

function routeTo(model, ruleId, effort, request) {
  return {
    model: model || request.requested_model,
    rule_id: ruleId,
    effort,
    as_requested: !model,
  };
}

function holds(policy, { field, op, value }, request) {
  const name = field === "input_tokens" ? policy.measure : field;
  const actual = request[name];
  switch (op) {
    case "<": return actual < value;
    case "<=": return actual <= value;
    case ">": return actual > value;
    case ">=": return actual >= value;
    case "!=": return actual !== value;
    case "in": return value.includes(actual);
    default:
      return actual === value || (name === "org_path" && actual.startsWith(`${value}/`));
  }
}

// Publications

/**
 * Verifies, parses and checks an envelope (the text as served) and returns the publication.
 * `trustedKeys` are base64 texts of raw Ed25519 public keys. Throws TurnwiseError.
 */
export function acceptPublication(envelope, { trustedKeys, channel, lowestSerial, nowUs }) {
  if (Buffer.byteLength(envelope) > MAX_ENVELOPE_BYTES) bad("The envelope is too large.");
  const publication = readPublication(envelope, trustedKeys);
  if (publication.channel !== channel) refuse("The publication is for another channel.");
  if (publication.serial < lowestSerial) {
    throw new TurnwiseError("Conflict", `Serial ${publication.serial} is below ${lowestSerial}.`);
  }
  if (publication.not_after_us <= nowUs) refuse("The publication has expired.");
  if (bucketOf("s1", "abc") !== 9688) throw new TurnwiseError("Corrupt", "Buckets are wrong.");
  if (new Set(publication.arms.map((arm) => arm.name)).size !== publication.arms.length) {
    bad("Two arms have the same name.");
  }
  return publication;
}

/** Verifies and parses, whether or not it may be routed by. */
export function readPublication(envelope, trustedKeys) {
  return checkPublication(parseJson(verifyEnvelope(envelope, trustedKeys)));
}

/** The payload text of a DSSE envelope that a trusted key has signed. */
export function verifyEnvelope(envelope, trustedKeys) {
  const document = parseJson(envelope);
  if (!isObject(document)) bad("The envelope is not an object.");
  if (document.payloadType !== PAYLOAD_TYPE) bad("The envelope is of another type.");
  const payload = fromBase64(document.payload);
  if (!Array.isArray(document.signatures) || !document.signatures.length) bad("No signatures.");
  const head = `DSSEv1 ${PAYLOAD_TYPE.length} ${PAYLOAD_TYPE} ${payload.length} `;
  const signed = Buffer.concat([Buffer.from(head), payload]);
  const keys = new Map(trustedKeys.map((key) => [keyIdOf(key), key]));
  for (const row of document.signatures) {
    if (!isObject(row)) bad("A signature is not an object.");
    const key = keys.get(String(row.keyid));
    if (key && verifySignature(null, signed, publicKey(key), fromBase64(row.sig))) {
      return payload.toString("utf8");
    }
  }
  return refuse("No trusted key has signed this payload.");
}

function keyIdOf(key) {
  return createHash("sha256").update(fromBase64(key)).digest("hex").slice(0, 16);
}

function publicKey(key) {
  const x = fromBase64(key).toString("base64url");
  return createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
}

function checkPublication(publication) {
  if (!isObject(publication) || publication.schema !== "turnwise.publication/1") {
    bad("The payload is no publication.");
  }
  for (const name of ["serial", "issued_at_us", "not_after_us"]) whole(publication[name], name);
  for (const name of ["channel", "salt"]) text(publication[name], name);
  if (typeof (publication.kill ?? false) !== "boolean") bad("kill: must be true or false");
  let weights = 0;
  for (const arm of list(publication.arms, "arms")) {
    if (!isObject(arm)) bad("arms: an arm is no object");
    text(arm.name, "arms.name");
    text(arm.policy_digest, "arms.policy_digest");
    whole(arm.policy_version, "arms.policy_version");
    weights += whole(arm.weight, "arms.weight");
    checkPolicy(arm.policy);
  }
  if (weights !== BUCKETS) bad("The weights of the arms don't add up.");
  return publication;
}

// A gateway must not ignore what it does not understand.
function checkPolicy(policy) {
  only(policy, "policy", [
    "schema", "name", "description", "measure", "unit", "rules", "default", "estimator", "guards",
  ]);
  if (policy.schema !== "turnwise.policy/1") bad("The policy is of another schema.");
  oneOf(policy.measure, MEASURES, "measure");
  oneOf(policy.unit, UNITS, "unit");
  if (list(policy.rules, "rules").length > MAX_RULES) bad("An arm has too many rules.");
  for (const rule of policy.rules) {
    only(rule, "rule", ["id", "when", "set"]);
    text(rule.id, "rule.id");
    only(rule.set, "set", ["model", "effort"]);
    for (const condition of list(rule.when ?? [], "when")) checkCondition(condition);
  }
  only(policy.default ?? {}, "default", ["model"]);
  only(policy.estimator ?? {}, "estimator", ["kind", "chars_per_token", "image_tokens"]);
  oneOf(policy.estimator?.kind ?? "chars", ["chars"], "estimator.kind");
  only(policy.guards ?? {}, "guards", [
    "max_context_tokens", "tool_loop_lock", "min_run_requests",
  ]);
  whole(policy.guards?.min_run_requests ?? 0, "guards.min_run_requests");
}

function checkCondition(condition) {
  only(condition, "condition", ["field", "op", "value"]);
  const { field, op, value } = condition;
  if (NUMBER_FIELDS.includes(field)) {
    oneOf(op, ["<", "<=", ">", ">=", "==", "!="], "op");
    if (!Number.isFinite(value)) bad(`${field} is compared with a finite number`);
    return;
  }
  oneOf(field, TEXT_FIELDS, "field");
  oneOf(op, ["==", "!=", "in"], "op");
  for (const part of op === "in" ? list(value, "value") : [value]) {
    if (typeof part !== "string") bad(`${field} is compared with texts`);
  }
}

function bad(message) {
  throw new TurnwiseError("BadInput", message);
}

function refuse(message) {
  throw new TurnwiseError("Refused", message);
}

function parseJson(json) {
  try {
    return JSON.parse(json);
  } catch (error) {
    return bad(`Not JSON: ${error.message}`);
  }
}

function fromBase64(value) {
  if (typeof value !== "string" || !/^[A-Za-z0-9+/]*={0,2}$/.test(value) || value.length % 4) {
    bad("Not base64.");
  }
  return Buffer.from(value, "base64");
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function only(value, path, allowed) {
  if (!isObject(value)) bad(`${path}: must be an object`);
  const unknown = Object.keys(value).filter((key) => !allowed.includes(key));
  if (unknown.length) bad(`${path}: unknown key ${unknown[0]}`);
}

function oneOf(value, allowed, path) {
  if (!allowed.includes(value)) bad(`${path}: must be one of ${allowed.join(", ")}`);
}

function list(value, path) {
  return Array.isArray(value) ? value : bad(`${path}: must be a list`);
}

function text(value, path) {
  return typeof value === "string" && value ? value : bad(`${path}: must be a text`);
}

function whole(value, path) {
  return Number.isSafeInteger(value) && value >= 0 ? value : bad(`${path}: must be whole`);
}
