// Reads vectors on standard input and writes {section: [answer, ...]}; run by the tests.

import { readFileSync } from "node:fs";
import {
  acceptPublication, bucketOf, chooseArm, decide, unitKey,
} from "../../../routing_policies/gateways/turnwise_decide.mjs";
import { readFeatures, repair } from "../../../routing_policies/gateways/turnwise_requests.mjs";

const vectors = JSON.parse(readFileSync(0, "utf8"));
const table = JSON.parse(
  readFileSync(new URL("../../../routing_policies/model_capabilities.json", import.meta.url)),
);

function envelope(item) {
  try {
    const { serial } = acceptPublication(item.envelope, {
      trustedKeys: item.trusted_keys,
      channel: item.channel,
      lowestSerial: item.lowest_serial,
      nowUs: item.now_us,
    });
    return { outcome: "accepted", serial };
  } catch (error) {
    if (error.name !== "TurnwiseError") throw error;
    return { outcome: error.kind };
  }
}

function decision({ policy, request, previous }) {
  const document = vectors.policies[policy];
  return { route: decide(document, request, previous), unit_key: unitKey(document, request) };
}

function arm({ salt, arms, key }) {
  const rows = arms.map(([name, weight]) => ({ name, weight }));
  const chosen = chooseArm({ salt, arms: rows }, key);
  return { arm: chosen.arm.name, bucket: chosen.bucket };
}

function fitted({ body, betas, model, effort }) {
  const before = JSON.stringify(body);
  const done = repair(body, betas, model, effort, table);
  if (JSON.stringify(body) !== before) throw new Error("repair changed its input");
  return done === null ? { outcome: "Refused" } : { outcome: "repaired", ...done };
}

const answers = {
  buckets: vectors.buckets.map(({ salt, key }) => bucketOf(salt, key)),
  arms: vectors.arms.map(arm),
  decisions: vectors.decisions.map(decision),
  features: vectors.features.map(({ body, headers, estimator: [chars_per_token, image_tokens] }) =>
    readFeatures(body, headers, { chars_per_token, image_tokens })),
  envelopes: vectors.envelopes.map(envelope),
  repairs: vectors.repairs.map(fitted),
};
process.stdout.write(JSON.stringify(answers));
