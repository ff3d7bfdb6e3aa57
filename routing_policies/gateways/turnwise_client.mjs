// The policy client for gateways in JavaScript: pulls publications, checks them, chooses routes.
//
// The counterpart of client.py; docs/policies.md says what a client does. It fails open: without
// a publication that holds, every request keeps the model it names.

import { randomBytes } from "node:crypto";
import { readFile, rename, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import {
  TurnwiseError, acceptPublication, chooseArm, decide, locksToolLoops, readPublication, unitKey,
} from "./turnwise_decide.mjs";
import { readFeatures, sessionOf } from "./turnwise_requests.mjs";

const WAIT_SECONDS = 25;
const MAX_BACKOFF_SECONDS = 60;
const REPORT_SECONDS = 1;
const MAX_BUFFERED = 20_000;
const MAX_BATCH = 500;
const MAX_UNITS = 100_000;
const TTL_MS = 6 * 3600 * 1000;

const nowUs = () => Date.now() * 1000;
const sleep = (seconds) =>
  new Promise((resolve) => setTimeout(resolve, seconds * 1000).unref());

export class PolicyClient {
  #kept = new Map();
  #decisions = [];
  #etag = "";
  #lowestSerial = 0;
  #stopped = new AbortController();
  #settled;
  publication = null;
  problem = "";
  dropped = 0;

  /** `trustedKeys`: base64 texts of raw Ed25519 public keys. `statePath`: last-known-good file. */
  constructor({
    serviceUrl, trustedKeys, channel = "prod", gateway = "javascript", instance = "",
    token = "", statePath = "", warn = console.warn,
  }) {
    Object.assign(this, { trustedKeys, channel, gateway, statePath, warn });
    this.serviceUrl = serviceUrl.replace(/\/+$/, "");
    this.instance = instance || `${hostname()}-${randomBytes(4).toString("hex")}`;
    this.headers = token ? { authorization: `Bearer ${token}` } : {};
  }

  /** Takes up the last-known-good file and begins to poll; resolves after the first try. */
  async start() {
    await this.#loadLastKnownGood();
    const first = new Promise((resolve) => { this.#settled = resolve; });
    this.#pollUntilStopped();
    this.#reportUntilStopped();
    return first;
  }

  stop() {
    this.#stopped.abort();
  }

  /** The decision about one request and the effort that its rule asks for. Never throws. */
  routeBody(body, headers) {
    const publication = this.publication;
    const arm = publication && chooseArm(publication, sessionOf(body, headers)).arm;
    return this.route(readFeatures(body, headers, arm?.policy.estimator));
  }

  route(request) {
    const publication = this.publication;
    let passed = "";
    if (!publication) passed = "no_publication";
    else if (publication.kill) passed = "kill";
    else if (publication.not_after_us <= nowUs()) passed = "expired";
    if (passed) {
      const route = { model: request.requested_model, rule_id: `passthrough:${passed}` };
      return this.#choice(request, route, { serial: publication?.serial ?? 0 });
    }
    const { arm, bucket } = chooseArm(publication, request.session_id);
    return this.#choice(request, this.#decideKept(arm, request), {
      serial: publication.serial,
      policy_version: arm.policy_version,
      policy_digest: arm.policy_digest,
      arm: arm.name,
      bucket,
      propensity: arm.weight / 10_000,
      rollout_id: publication.rollout_id ?? "",
    });
  }

  /** Takes a decision to send to the service; the oldest are dropped when it is away for long. */
  report(decision) {
    if (this.#decisions.length >= MAX_BUFFERED) {
      this.#decisions.shift();
      this.dropped += 1;
    }
    this.#decisions.push(decision);
  }

  #decideKept(arm, request) {
    const { policy, policy_digest: digest } = arm;
    const key = JSON.stringify(unitKey(policy, request));
    let kept = this.#kept.get(key) ?? null;
    if (kept && Date.now() - kept.usedAt > TTL_MS) kept = null;
    this.#kept.delete(key); // set again below: a Map lists the least recently set first
    if (kept && kept.digest !== digest) {
      if (locksToolLoops(policy) && request.in_tool_loop) {
        this.#kept.set(key, kept);
        return { ...decide(policy, request, kept.route), rule_id: "guard:tool_loop_lock" };
      }
      kept = null;
    }
    const route = decide(policy, request, kept?.route ?? null);
    this.#kept.set(key, { route, digest, usedAt: Date.now() });
    if (this.#kept.size > MAX_UNITS) this.#kept.delete(this.#kept.keys().next().value);
    return route;
  }

  #choice(request, route, publication) {
    const decision = {
      decision_id: `tw_${randomBytes(12).toString("hex")}`,
      at_us: nowUs(),
      session_id: request.session_id,
      agent_id: request.agent_id,
      serial: 0, policy_version: 0, policy_digest: "", arm: "", bucket: 0, propensity: 1,
      rollout_id: "",
      ...publication,
      rule_id: route.rule_id,
      requested_model: request.requested_model,
      routed_model: route.model,
      total_input_tokens: request.total_input_tokens,
      uncached_input_tokens: request.uncached_input_tokens,
      new_tokens: request.new_tokens,
      prompt_tokens: request.prompt_tokens,
      request_class: request.request_class,
      agent_name: request.agent_name,
      gateway: this.gateway,
      instance: this.instance,
      fixes: [],
      upstream_status: null,
    };
    return { decision, effort: route.effort ?? "" };
  }

  #fail(problem) {
    if (problem !== this.problem) this.warn(`turnwise: ${problem}`);
    this.problem = problem;
  }

  #accept(envelope) {
    const { trustedKeys, channel } = this;
    const publication = acceptPublication(envelope, {
      trustedKeys, channel, lowestSerial: this.#lowestSerial, nowUs: nowUs(),
    });
    const current = this.publication;
    const again = current && current.serial === publication.serial;
    if (again && JSON.stringify(current) !== JSON.stringify(publication)) {
      throw new TurnwiseError("Corrupt", `Serial ${current.serial} came twice, not the same.`);
    }
    return publication;
  }

  async #loadLastKnownGood() {
    if (!this.statePath) return;
    try {
      const saved = JSON.parse(await readFile(this.statePath, "utf8"));
      const envelope = Buffer.from(saved.envelope, "base64").toString();
      const publication = readPublication(envelope, this.trustedKeys);
      if (publication.channel !== this.channel) throw new Error("it is for another channel");
      this.#swap(publication, saved.etag); // an expired one only keeps older serials out
    } catch (error) {
      if (error.code !== "ENOENT") this.#fail(`last-known-good not used: ${error.message}`);
    }
  }

  async #save(envelope, etag) {
    if (!this.statePath) return;
    const draft = `${this.statePath}.${randomBytes(8).toString("hex")}.draft`;
    const document = { envelope: Buffer.from(envelope).toString("base64"), etag };
    try {
      await writeFile(draft, JSON.stringify(document), { flush: true });
      await rename(draft, this.statePath);
    } catch (error) {
      this.#fail(`last-known-good not saved: ${error.message}`);
    }
  }

  #swap(publication, etag) {
    this.publication = publication;
    this.#etag = etag;
    this.#lowestSerial = publication.serial;
  }

  async #poll() {
    const { channel, gateway, instance } = this;
    const query = new URLSearchParams({ channel, gateway, instance, wait: String(WAIT_SECONDS) });
    const answer = await fetch(`${this.serviceUrl}/v1/gateway/policy?${query}`, {
      headers: this.#etag ? { ...this.headers, "if-none-match": this.#etag } : this.headers,
      signal: AbortSignal.any([this.#stopped.signal, AbortSignal.timeout(35_000)]),
    });
    if (answer.status === 304) return;
    if (answer.status !== 200) throw new Error(`the service answered ${answer.status}`);
    const envelope = await answer.text();
    const etag = answer.headers.get("etag") ?? "";
    let row;
    try {
      const publication = this.#accept(envelope);
      await this.#save(envelope, etag);
      this.#swap(publication, etag);
      row = { serial: publication.serial, status: "applied", error: "" };
    } catch (error) {
      if (error.name !== "TurnwiseError") throw error;
      row = { serial: 0, status: "rejected", error: error.message };
    }
    await this.#post("/v1/gateway/ack", { ...row, instance, gateway, channel, at_us: nowUs() });
    if (row.status === "rejected") throw new Error(`rejected: ${row.error}`);
  }

  async #post(path, document) {
    const answer = await fetch(`${this.serviceUrl}${path}`, {
      method: "POST",
      headers: { ...this.headers, "content-type": "application/json" },
      body: JSON.stringify(document),
      signal: AbortSignal.timeout(10_000),
    });
    if (answer.status >= 500 || [401, 403, 408, 429].includes(answer.status)) {
      throw new Error(`the service answered ${answer.status}`);
    }
  }

  async #pollUntilStopped() {
    for (let failures = 0; !this.#stopped.signal.aborted; ) {
      try {
        await this.#poll();
        this.problem = "";
        failures = 0;
      } catch (error) {
        if (this.#stopped.signal.aborted) return;
        this.#fail(error.cause?.message ?? error.message);
        failures += 1;
      }
      this.#settled();
      if (failures) await sleep(0.5 + Math.random() * Math.min(MAX_BACKOFF_SECONDS, 2 ** failures));
    }
  }

  async #reportUntilStopped() {
    for (let failures = 0; !this.#stopped.signal.aborted; ) {
      await sleep(failures ? Math.random() * Math.min(30, 2 ** failures) : REPORT_SECONDS);
      while (this.#decisions.length) {
        const batch = this.#decisions.slice(0, MAX_BATCH);
        try {
          await this.#post("/v1/gateway/decisions", batch);
        } catch {
          failures += 1; // they stay buffered: sending one twice does no harm
          break;
        }
        failures = 0;
        const sent = new Set(batch);
        this.#decisions = this.#decisions.filter((decision) => !sent.has(decision));
      }
    }
  }
}
