// Express, with compression and http-proxy-middleware as their manuals say: node express-proxy.mjs URL
// Prints where it listens, before the URL of a daemon.

import compression from "compression";
import express from "express";
import { createProxyMiddleware } from "http-proxy-middleware";

import { print } from "./print.mjs";

const app = express();
app.use(compression());
app.use(createProxyMiddleware({ target: process.argv[2], changeOrigin: true }));

const server = app.listen(0, "127.0.0.1", () => print({ port: server.address().port }));
