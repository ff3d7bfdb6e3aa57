// Loads the custom router as claude-code-router does and asks it for each line; run by the tests.

const { createInterface } = require("node:readline");
const router = require(process.argv[2]);

(async () => {
  for await (const line of createInterface({ input: process.stdin })) {
    const req = JSON.parse(line);
    const target = await router(req, {});
    process.stdout.write(`${JSON.stringify({ target, body: req.body, headers: req.headers })}\n`);
  }
  process.exit(0);
})();
