// What any application with the AWS SDK for JavaScript does, and nothing else.
const { STSClient } = require("@aws-sdk/client-sts");

new STSClient().config.credentials().then(
  (credentials) => console.log(JSON.stringify({ session_token: credentials.sessionToken })),
  (error) => console.log(JSON.stringify({ error: error.message })),
);
