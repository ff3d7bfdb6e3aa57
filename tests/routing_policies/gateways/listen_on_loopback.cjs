// Preloaded into a gateway that would listen on every address: here it listens on loopback.
const net = require("node:net");
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (...given) {
  const callback = given.find((value) => typeof value === "function");
  const port = typeof given[0] === "object" && given[0] !== null ? given[0].port : given[0];
  return listen.call(this, { port: Number(port), host: "127.0.0.1" }, callback);
};
