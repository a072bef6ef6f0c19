// npm kissmetrics 0.0.4 as its users use it: `node record_by_npm.js PORT`. Prints "done"; any error ends it with 1.
const Client = require("kissmetrics");

const client = new Client({ key: "npm-key", host: "127.0.0.1", port: Number(process.argv[2]) });
const must = (next) => (error) => {
  if (error) throw error;
  next();
};

client.record("bob@example.com", "Viewed Page", { "Page Name": "Start ä" }, must(() =>
  client.set("bob@example.com", { plan: "free" }, must(() =>
    client.alias("bob@example.com", ["user-18", "user-19"], must(() => console.log("done")))))));
