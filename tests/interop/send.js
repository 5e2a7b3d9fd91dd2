// Sends the mail described by the JSON on stdin with nodemailer, and prints in base64 what nodemailer composed.
"use strict";
const fs = require("fs");
const { PassThrough } = require("stream");
const nodemailer = require("nodemailer");

const { server, mail } = JSON.parse(fs.readFileSync(0, "utf8"));
server.tls = { ca: fs.readFileSync(server.certificate) };
const transport = nodemailer.createTransport(server);
const composed = [];

transport.use("stream", (sending, done) => {
  sending.message.transform(() => {
    const tap = new PassThrough();
    tap.on("data", (chunk) => composed.push(chunk));
    return tap;
  });
  done();
});

transport
  .sendMail(mail)
  .then((info) => console.log(JSON.stringify({ info, composed: Buffer.concat(composed).toString("base64") })))
  .catch((error) => {
    console.error(error);
    process.exitCode = 1;
  });
