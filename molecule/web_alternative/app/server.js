// The smallest application that listens at a port: it tells what it was given, and may answer slowly.
const http = require("http");

const server = http.createServer((request, response) => {
  const url = new URL(request.url, "http://board.test");
  const told = {
    release: process.env.RELEASE, port: process.env.PORT, zone: process.env.ZONE,
    mode: process.env.NODE_ENV, file: process.env.EXTRA, client: request.headers["x-forwarded-for"],
  };
  const wait = Number(url.searchParams.get("seconds") || 0) * 1000;
  setTimeout(() => response.end(JSON.stringify(told)), wait);
});
server.listen(Number(process.env.PORT), process.env.HOST, () => console.log("listening"));
process.on("SIGTERM", () => server.close(() => process.exit(0)));
