/**
 * What the test's page runs: guests/hello on the library as a browser loads it. The test bundles this file.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Upcall from "../../src/index.ts"
import { type HelloReport, runHelloOn } from "./hello.ts"

/** What the page can tell of a run. */
export interface PageReport extends HelloReport {
  readonly isIsolated: boolean
}

interface Isolation {
  readonly crossOriginIsolated: boolean
}

const bytesOf = async (path: string): Promise<Uint8Array> => {
  const response = await fetch(path)
  if (!response.ok) throw new Error(`${path}: ${response.status}`)
  return new Uint8Array(await response.arrayBuffer())
}

const runHello = async (hypervisor: "Emulated" | "Simulated"): Promise<PageReport> => {
  const image = await bytesOf("hello.bin")
  const report = await runHelloOn(
    image,
    hypervisor === "Simulated"
      ? Upcall.Simulated.layer
      : Upcall.Emulated.layerWith({ clock: "Virtual", wasm: await bytesOf("v86.wasm") })
  )
  return { ...report, isIsolated: (globalThis as unknown as Isolation).crossOriginIsolated }
}

/** Emulated without its bytes, which only a file system could give: what the error says. */
const runWithoutBytes = (): Promise<string> =>
  Effect.runPromise(Effect.scoped(Layer.build(Upcall.Emulated.layer))).then(
    () => "it was built",
    (error: Error) => error.message
  )

Object.assign(globalThis, { runHello, runWithoutBytes })
