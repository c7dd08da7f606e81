#!/usr/bin/env node
/**
 * The `upcall` program: arguments, signals and the exit status of the process.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import { readFileSync } from "node:fs"
import { main } from "./command.ts"
import * as Outcome from "./Outcome.ts"
import * as RawMode from "./RawMode.ts"

const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
  readonly version: string
}

let signalStatus: number | undefined
let isHungUp = false

// The runtime ends the VM on the first signal; whoever sends a second one does not want to wait for that.
const onSignal = (status: number) => () => {
  if (signalStatus !== undefined) process.exit(signalStatus)
  signalStatus = isHungUp ? Outcome.EXIT.hungUp : status
}
process.on("SIGINT", onSignal(Outcome.EXIT.interrupted))
process.on("SIGTERM", onSignal(Outcome.EXIT.terminated))
// A terminal that was closed: the runtime knows only the two signals above, so one of them is raised.
process.on("SIGHUP", () => {
  isHungUp = true
  process.kill(process.pid, "SIGTERM")
})

// Without a listener a reader that went away would be an uncaught exception; the console notices it by itself.
process.stdout.on("error", () => undefined)
process.stderr.on("error", () => undefined)

const flushed = (stream: NodeJS.WriteStream): Promise<void> =>
  new Promise((resolve) => {
    stream.write("", () => resolve())
  })

NodeRuntime.runMain(
  Effect.provide(main(process.argv.slice(2), version), Layer.merge(NodeServices.layer, RawMode.layer)),
  {
    disableErrorReporting: true,
    teardown: (exit) => {
      const status = Exit.isSuccess(exit) && typeof exit.value === "number" ? exit.value : Outcome.EXIT.crash
      // Standard input may still be open; it must not keep the process.
      void Promise.all([flushed(process.stdout), flushed(process.stderr)]).then(() => {
        process.exit(signalStatus ?? status)
      })
    }
  }
)
