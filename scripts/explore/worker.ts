/**
 * The thread that explores one scenario, on the sources as they are or with one planted bug: the edit is made as the
 * module is loaded, so that the files stay as they are.
 */
import * as Effect from "effect/Effect"
import { registerHooks } from "node:module"
import { parentPort, workerData } from "node:worker_threads"
import type { Job } from "./job.ts"
import type { Edit } from "./planted.ts"

const { edits, how, name } = workerData as Job
const root = new URL("../../", import.meta.url).href
const made = new Set<Edit>()

registerHooks({
  load: (url, context, nextLoad) => {
    const loaded = nextLoad(url, context)
    const wanted = edits.filter(({ file }) => url === `${root}${file}`)
    if (wanted.length === 0 || loaded.source === undefined || loaded.source === null) return loaded
    const text = typeof loaded.source === "string" ? loaded.source : new TextDecoder().decode(loaded.source)
    const source = wanted.reduce((before, edit) => {
      made.add(edit)
      return before.replace(edit.find, () => edit.replace)
    }, text)
    return { ...loaded, source }
  }
})

// Only now: what is imported above would be the sources without the edit.
const Explorer = await import("../../src/testing/Explorer.ts")
const { scenarios } = await import("./scenarios/all.ts")

const scenario = scenarios.find((each) => each.name === name)
if (scenario === undefined) throw new Error(`there is no scenario "${name}"`)
const missed = edits.find((edit) => !made.has(edit))
if (missed !== undefined) throw new Error(`${missed.file} was to be edited, but "${name}" does not load it`)
const exploring = how._tag === "All"
  ? Explorer.explore(scenario.run)
  : how._tag === "Random"
  ? Explorer.random(scenario.run, how)
  : Explorer.replay(scenario.run, how.schedule)
const start = performance.now()
const report = await Effect.runPromise(exploring)
// oxlint-disable-next-line unicorn/require-post-message-target-origin -- the port of a thread has no origin
parentPort?.postMessage({ report, seconds: (performance.now() - start) / 1000 })
