// What a gateway reads of a POST /v1/messages request, and how it fits one to another model.
//
// The counterpart of request_features.py and repair.py (docs/gateways.md has the vectors).

import { createHash } from "node:crypto";

const CLIENT_TEXTS = ["<system-reminder>", "<task-notification>"];
const REQUEST_CLASSES = {
  main: "main", subagent: "subagent", workflow: "subagent",
  compaction: "auxiliary", auxiliary: "auxiliary", side_reply: "auxiliary",
};
const OLD_SESSION_ID = /_session_([0-9a-fA-F-]{36})$/;
const EFFORT_BETA = "effort-2025-11-24";
const FAST_BETA = "fast-mode-2026-02-01";
const PER_TURN_BETAS = ["per-turn-control-2026-07-01", "mid-conversation-tool-changes-2026-07-01"];
const EFFORT_ORDER = ["low", "medium", "high", "xhigh", "max"];
const MIN_THINKING_TOKENS = 1024;
const THINKING_TOKENS = 31_999;

// Features

/** The request that decide() takes. `headers` has lower-case names. */
export function readFeatures(body, headers, { chars_per_token = 3.3, image_tokens = 1600 } = {}) {
  const messages = items(body.messages).filter(isObject);
  const parts = partsOf(body, messages);
  const tokens = (some) => {
    const characters = some.reduce((sum, part) => sum + part.characters, 0);
    const images = some.reduce((sum, part) => sum + part.images, 0);
    return Math.ceil(characters / chars_per_token + images * image_tokens);
  };
  const lastAssistant = messages.findLastIndex((message) => message.role === "assistant");
  const turn = messages.slice(lastAssistant + 1).filter((message) => message.role === "user");
  const inToolLoop = turn.some(hasToolResult);
  const agentId = headers["x-claude-code-agent-id"] ?? "";
  const lastBreakpoint = parts.findLastIndex((part) => part.isBreakpoint);
  return {
    requested_model: String(body.model || ""),
    session_id: sessionOf(body, headers),
    agent_id: agentId,
    agent_name: headers["x-claude-code-agent-type"] ?? "",
    request_class: requestClass(body, headers, agentId),
    org_path: headers["x-tw-org"] ?? "",
    repository: headers["x-tw-repo"] ?? "",
    effort: typeof body.output_config?.effort === "string" ? body.output_config.effort : "",
    turn_index: messages.filter((message) => message.role === "assistant").length,
    total_input_tokens: tokens(parts),
    uncached_input_tokens: tokens(parts.slice(lastBreakpoint + 1)),
    new_tokens: tokens(
      lastAssistant < 0 ? parts : parts.filter((part) => part.message > lastAssistant),
    ),
    prompt_tokens: Math.trunc(codePoints(humanPrompt(messages)) / chars_per_token),
    starts_user_turn: turn.length > 0 && !inToolLoop,
    in_tool_loop: inToolLoop,
  };
}

/** The session: the client's header, else its metadata.user_id, else a digest of the start. */
export function sessionOf(body, headers) {
  const named = headers["x-claude-code-session-id"];
  if (named) return named;
  const userId = body.metadata?.user_id;
  if (typeof userId === "string") {
    const old = OLD_SESSION_ID.exec(userId);
    if (old) return old[1];
    const fields = readJson(userId);
    if (isObject(fields) && typeof fields.session_id === "string") return fields.session_id;
  }
  const first = pythonJson(items(body.messages)[0] ?? null, { ascii: true, sorted: true });
  return `conversation-${createHash("sha256").update(first).digest("hex").slice(0, 16)}`;
}

/** The last text that a human wrote. */
export function humanPrompt(messages) {
  let prompt = "";
  for (const { role, content } of messages) {
    if (role !== "user") continue;
    const texts = typeof content === "string" ? [content] : items(content).map(textOf);
    const own = texts.filter(
      (text) => text && !CLIENT_TEXTS.some((start) => text.trimStart().startsWith(start)),
    );
    prompt = own.at(-1) ?? prompt;
  }
  return prompt;
}

function partsOf(body, messages) {
  const part = (block, message) => ({ ...sizeOf(block), message, isBreakpoint: breaks(block) });
  return [
    ...items(body.tools).map((tool) => ({
      characters: jsonLength(tool), images: 0, message: -1, isBreakpoint: breaks(tool),
    })),
    ...blocks(body.system).map((block) => part(block, -1)),
    ...messages.flatMap(({ content }, at) => blocks(content).map((block) => part(block, at))),
  ];
}

function sizeOf(block) {
  if (!isObject(block)) return { characters: 0, images: 0 };
  if (block.type === "image") return { characters: 0, images: 1 };
  if (block.type === "tool_result") {
    const inner = blocks(block.content).map(sizeOf);
    return {
      characters: inner.reduce((sum, size) => sum + size.characters, 0),
      images: inner.reduce((sum, size) => sum + size.images, 0),
    };
  }
  if (block.type === "tool_use") {
    return { characters: codePoints(String(block.name)) + jsonLength(block.input), images: 0 };
  }
  const text = block.text || block.thinking;
  return { characters: typeof text === "string" ? codePoints(text) : jsonLength(block), images: 0 };
}

function breaks(block) {
  if (!isObject(block)) return false;
  const mark = block.cache_control;
  if (isObject(mark) ? Object.keys(mark).length : mark) return true;
  return block.type === "tool_result" && items(block.content).some(breaks);
}

function requestClass(body, headers, agentId) {
  const hinted = REQUEST_CLASSES[headers["x-claude-code-request-class"] ?? ""];
  if (hinted) return hinted;
  if (agentId) return "subagent";
  return items(body.tools).length ? "main" : "auxiliary";
}

function hasToolResult({ content }) {
  return items(content).some((item) => isObject(item) && item.type === "tool_result");
}

function textOf(block) {
  return isObject(block) && block.type === "text" && typeof block.text === "string"
    ? block.text
    : "";
}

function jsonLength(value) {
  return codePoints(pythonJson(value ?? null));
}

// JSON as Python writes it, so that lengths and digests are the same.
function pythonJson(value, { ascii = false, sorted = false } = {}) {
  const options = { ascii, sorted };
  if (Array.isArray(value)) {
    return `[${value.map((item) => pythonJson(item, options)).join(", ")}]`;
  }
  if (isObject(value)) {
    const keys = sorted ? Object.keys(value).sort() : Object.keys(value);
    const rows = keys.map((key) => `${pythonJson(key, options)}: ${pythonJson(value[key], options)}`);
    return `{${rows.join(", ")}}`;
  }
  const json = JSON.stringify(value);
  const escape = (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return ascii ? json.replace(/[\u007f-\uffff]/g, (unit) => (unit === "\x7f" ? unit : escape(unit))) : json;
}

function codePoints(text) {
  let count = text.length;
  for (let at = 0; at < text.length - 1; at += 1) {
    const unit = text.charCodeAt(at);
    if (unit >= 0xd800 && unit < 0xdc00 && (text.charCodeAt(at + 1) & 0xfc00) === 0xdc00) count -= 1;
  }
  return count;
}

// Repair

/**
 * The request for `model` with `effort` ("" leaves it): body, betas and what was done; null when
 * a part of the body has no form that the model accepts. `table` is model_capabilities.json.
 */
export function repair(body, betas, model, effort, table) {
  const fitted = { ...body, model };
  const flags = betas.split(",").map((flag) => flag.trim()).filter(Boolean);
  const fixes = [];
  if (effort) {
    fitted.output_config = { ...object(body.output_config), effort };
    fixes.push(`effort_set:${effort}`);
  }
  const target = capabilitiesOf(model, table);
  if (target) {
    for (const step of [fitMessages, fitMaxTokens, fitThinking, fitEffort, fitSampling, fitSpeed]) {
      const done = step(fitted, flags, target);
      if (done === null) return null;
      fixes.push(...done);
    }
  } else if (effort && !flags.includes(EFFORT_BETA)) {
    flags.push(EFFORT_BETA);
  }
  return { body: fitted, betas: flags.join(","), fixes };
}

/** By the longest fitting prefix; dated and bracketed names count as their family. */
export function capabilitiesOf(model, table) {
  const name = model.replace(/(\[\w+\]|-\d{8}|-latest)+$/, "");
  const fitting = Object.keys(table.models)
    .filter((prefix) => name === prefix || name.startsWith(`${prefix}-`))
    .sort((a, b) => b.length - a.length);
  return fitting.length ? table.models[fitting[0]] : null;
}

function fitMessages(body, flags, target) {
  if (target.per_turn_control || !Array.isArray(body.messages)) return [];
  const fixes = new Set();
  let translatable = true;
  const fitted = body.messages.map((message) => {
    if (!isObject(message)) return message;
    const { output_config: dropped, ...plain } = message;
    if (dropped !== undefined) fixes.add("message_output_config_dropped");
    if (message.role !== "system") return plain;
    fixes.add("system_message_to_reminder");
    const content = blocks(plain.content);
    translatable &&= content.every((block) => isObject(block) && typeof block.text === "string");
    return {
      role: "user",
      content: content.map((block) => ({
        ...block, text: `<system-reminder>\n${block?.text}\n</system-reminder>`,
      })),
    };
  });
  if (!translatable) return null;
  if (fixes.size) body.messages = fitted;
  for (const flag of PER_TURN_BETAS) {
    if (remove(flags, flag)) fixes.add(`beta_dropped:${flag}`);
  }
  return [...fixes].sort();
}

function fitMaxTokens(body, flags, target) {
  if (!Number.isInteger(body.max_tokens) || body.max_tokens <= target.max_output_tokens) return [];
  body.max_tokens = target.max_output_tokens;
  return [`max_tokens:${target.max_output_tokens}`];
}

function fitThinking(body, flags, target) {
  if (!isObject(body.thinking)) return [];
  const { type: mode, budget_tokens: asked, ...rest } = body.thinking;
  if (mode !== "adaptive" && mode !== "enabled") return [];
  const limit = Number.isInteger(body.max_tokens) ? body.max_tokens : null;
  const fits = mode === "adaptive" || (Number.isInteger(asked) && limit !== null && asked < limit);
  if (target.thinking.includes(mode) && fits) return [];
  if (target.thinking.includes("adaptive")) {
    body.thinking = { type: "adaptive", ...rest };
    return ["thinking:adaptive"];
  }
  const budget = Math.min(THINKING_TOKENS, limit === null ? 0 : limit - 1);
  if (target.thinking.includes("enabled") && budget >= MIN_THINKING_TOKENS) {
    body.thinking = { type: "enabled", budget_tokens: budget, ...rest };
    return [`thinking:enabled:${budget}`];
  }
  delete body.thinking;
  return ["thinking_dropped", ...dropThinkingEdits(body)];
}

function dropThinkingEdits(body) {
  const management = object(body.context_management);
  if (!Array.isArray(management.edits)) return [];
  const kept = management.edits.filter(
    (edit) => !String(object(edit).type ?? "").startsWith("clear_thinking"),
  );
  if (kept.length === management.edits.length) return [];
  if (kept.length) body.context_management = { ...management, edits: kept };
  else delete body.context_management;
  return ["clear_thinking_dropped"];
}

function fitEffort(body, flags, target) {
  const { effort, ...rest } = object(body.output_config);
  const fixes = [];
  if (typeof effort === "string" && !target.efforts.includes(effort)) {
    const lower = target.efforts.filter((known) => rank(known) <= rank(effort));
    if (lower.length) {
      rest.effort = lower.reduce((best, known) => (rank(known) > rank(best) ? known : best));
      fixes.push(`effort:${rest.effort}`);
    } else {
      fixes.push("effort_dropped");
    }
    if (Object.keys(rest).length) body.output_config = rest;
    else delete body.output_config;
  }
  if (!target.efforts.length && remove(flags, EFFORT_BETA)) {
    fixes.push(`beta_dropped:${EFFORT_BETA}`);
  }
  if (object(body.output_config).effort && !flags.includes(EFFORT_BETA)) {
    flags.push(EFFORT_BETA);
    fixes.push(`beta_added:${EFFORT_BETA}`);
  }
  return fixes;
}

function fitSampling(body, flags, target) {
  if (target.sampling_parameters) return [];
  const present = ["temperature", "top_p", "top_k"].filter((name) => name in body);
  for (const name of present) delete body[name];
  return present.map((name) => `${name}_dropped`);
}

function fitSpeed(body, flags, target) {
  if (target.fast_mode) return [];
  const fixes = [];
  if (body.speed === "fast") {
    delete body.speed;
    fixes.push("speed_dropped");
  }
  if (remove(flags, FAST_BETA)) fixes.push(`beta_dropped:${FAST_BETA}`);
  return fixes;
}

function rank(effort) {
  return EFFORT_ORDER.includes(effort) ? EFFORT_ORDER.indexOf(effort) : EFFORT_ORDER.length;
}

function remove(flags, flag) {
  const at = flags.indexOf(flag);
  if (at >= 0) flags.splice(at, 1);
  return at >= 0;
}

function readJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function blocks(content) {
  return typeof content === "string" ? [{ type: "text", text: content }] : items(content);
}

function items(value) {
  return Array.isArray(value) ? value : [];
}

function object(value) {
  return isObject(value) ? value : {};
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
