/**
 * Exploring one scenario in a thread of its own.
 */
import { readFileSync } from "node:fs"
import { Worker } from "node:worker_threads"
import type { Report } from "../../src/testing/Explorer.ts"
import type { Edit } from "./planted.ts"

export interface Job {
  readonly name: string
  readonly how:
    | { readonly _tag: "All" }
    | { readonly _tag: "Random"; readonly seed: number; readonly schedules: number }
    | { readonly _tag: "Replay"; readonly schedule: string }
  /** What is changed in the sources before they are loaded. */
  readonly edits: ReadonlyArray<Edit>
}

export interface Done {
  readonly report: Report
  readonly seconds: number
}

const GIVE_UP_MS = 10 * 60_000
const root = new URL("../../", import.meta.url)

/** Why an edit cannot be made: its text must stand in its file exactly once, or what is planted is not what is meant. */
export const misfit = ({ file, find }: Edit): string | undefined => {
  const found = readFileSync(new URL(file, root), "utf8").split(find).length - 1
  return found === 1 ? undefined : `its text stands in ${file} ${found} times, not once:\n${find}`
}

/** Fails when the thread does, or does not come to an end. */
export const run = (job: Job): Promise<Done> =>
  new Promise((resolve, reject) => {
    const problem = job.edits.map(misfit).find((each) => each !== undefined)
    if (problem !== undefined) {
      reject(new Error(problem))
      return
    }
    const worker = new Worker(new URL("worker.ts", import.meta.url), { workerData: job, execArgv: [] })
    const timer = setTimeout(() => {
      reject(new Error("it did not come to an end in 10 minutes"))
      void worker.terminate()
    }, GIVE_UP_MS)
    worker.once("message", resolve)
    worker.once("error", reject)
    worker.once("exit", (code) => {
      clearTimeout(timer)
      reject(new Error(`its thread ended with code ${code} and no report`))
    })
  })
