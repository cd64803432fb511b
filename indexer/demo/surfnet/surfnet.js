// Runs a local Solana runtime for as long as standard input stays open.
//
//   node surfnet.js '{"slotTimeMs": 50}'
//
// Prints one line of JSON when it is ready: rpcUrl, wsUrl (random loopback ports) and
// payerSecretKey (64 bytes as hex, of a wallet that has SOL). Everything else is asked of it over
// JSON-RPC. It never reaches for another network.
'use strict';

const { Surfnet } = require('@solana/surfpool-linux-x64-gnu');

// The runtime queues an event for every slot and transaction, and stops answering for good when
// about a thousand wait. Nobody here reads them; they only have to be taken.
const DRAIN_INTERVAL_MS = 50;

const options = JSON.parse(process.argv[2] || '{}');
const surfnet = Surfnet.startWithConfig({
  offline: true,
  blockProductionMode: 'clock',
  slotTimeMs: options.slotTimeMs,
});
setInterval(() => surfnet.drainEvents(), DRAIN_INTERVAL_MS);

function stop() {
  try {
    surfnet.stop();
  } finally {
    process.exit(0); // its threads do not end by themselves
  }
}

// However the parent goes, its end of the pipe closes with it, so that no runtime is left behind.
process.stdin.on('end', stop);
process.stdin.on('error', stop);
process.stdin.resume();
process.on('SIGTERM', stop);
process.on('SIGINT', () => {}); // Ctrl-C reaches the whole process group; the parent decides

process.stdout.write(
  JSON.stringify({
    rpcUrl: surfnet.rpcUrl,
    wsUrl: surfnet.wsUrl,
    payerSecretKey: Buffer.from(surfnet.payerSecretKey).toString('hex'),
  }) + '\n',
);
