// Loaded into the emulators before anything else (node -r).
//
// They end with the test that started them: its end of their standard input is closed when it dies, however it dies.
process.stdin.on('end', () => process.exit(0)).resume()

// A client that is killed in the middle of a request makes kinesalite throw; AWS does not go down with its clients.
process.on('uncaughtException', (err) => {
  if (err && err.code === 'ECONNRESET') return
  console.error(err)
  process.exit(1)
})
