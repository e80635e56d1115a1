/**
 * Client for Waterclock: event streams that resume exactly, reconnect with backoff, and share one
 * connection among the tabs of a browser; and publishing.
 *
 * Importing it does nothing, so it may be imported where a page is rendered on a server.
 *
 * @module
 */
export type { DisconnectReason } from './connection.js';
export { TokenError, type TokenSource } from './credentials.js';
export type { EventId } from './ids.js';
export type { End, Gap, WaterclockEvent } from './message.js';
export { publish, PublishError, type PublishOptions } from './publish.js';
export { type Stream, type StreamOptions, type StreamState, subscribe } from './stream.js';
