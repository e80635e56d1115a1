'use server';
import { publish, PublishError } from 'waterclock';

const waterclock = process.env.WATERCLOCK_URL ?? 'http://127.0.0.1:3000';

/** Publishes an order. Returns an error as a text. Check here who may publish. */
export async function publishOrder(_, form) {
  try {
    await publish(`${waterclock}/events/orders.eu`, form.get('order'));
    return null;
  } catch (error) {
    if (error instanceof PublishError) return error.message;
    return `Waterclock does not answer at ${waterclock}. The order was not published.`;
  }
}
