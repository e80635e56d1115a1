const waterclock = process.env.WATERCLOCK_URL ?? 'http://127.0.0.1:3000';

export default {
  // The page reads at `/events`, and a tab that has missed something asks `/poll`.
  rewrites: async () => [
    { source: '/events', destination: `${waterclock}/events` },
    { source: '/poll', destination: `${waterclock}/poll` },
  ],
};
