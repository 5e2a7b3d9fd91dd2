// The Node example of the API reference: only the base URL is another one.
const PLUNK_SECRET_KEY = process.env.PLUNK_SECRET_KEY;

async function sendEmail(to, subject, body) {
  const response = await fetch(`${process.env.BASE_URL}/v1/send`, {
    method: 'POST',
    headers: {
      'Authorization': `Bearer ${PLUNK_SECRET_KEY}`,
      'Content-Type': 'application/json'
    },
    body: JSON.stringify({ to, subject, body })
  });

  const data = await response.json();

  if (!data.success) {
    throw new Error(`[${data.error.code}] ${data.error.message}`);
  }

  return data.data;
}

try {
  console.log(JSON.stringify(await sendEmail(...process.argv.slice(2))));
} catch (error) {
  console.log(error.message);
}
