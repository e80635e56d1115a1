// A backend with Express. It keeps the orders that it has read from Waterclock. So each copy of the
// backend has all orders, and has them again after a restart.
import express from 'express';
import { publish, read, waterclock } from './waterclock.js';

const port = process.env.PORT ?? 8080;
const address = `http://localhost:${port}`;
const orders = [];
read('orders.*', (event) => orders.push(event));

const app = express();

app.get('/orders', (request, response) => {
  response.json(orders);
});

app.post('/orders/:region', express.text({ type: '*/*' }), async (request, response) => {
  // A page of another site must not publish through its visitor's browser. Programs send no Origin.
  if ((request.headers.origin ?? address) !== address) {
    return response.status(403).send(`Only pages of ${address} may publish\n`);
  }
  try {
    const answer = await publish(`orders.${request.params.region}`, request.body);
    response.status(answer.status).type(answer.headers.get('Content-Type')).send(await answer.text());
  } catch (error) {
    response.status(503).send(`Waterclock does not answer at ${waterclock} (${error.cause?.code})\n`);
  }
});

app.listen(port, 'localhost', (error) => {
  if (error) throw error;
  console.log(`Listening on ${address}`);
});
