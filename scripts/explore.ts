/**
 * Runs the scenarios of scripts/explore under every schedule there is, and then again with one planted bug after the
 * other, each of which has to be found.
 *
 *   npm run explore                                          everything
 *   npm run explore -- "pause"                               one scenario
 *   npm run explore -- "pause" --random 1000 --seed 7        one scenario, under random schedules
 *   npm run explore -- "pause" --replay 20013                one scenario, under one schedule
 *   npm run explore -- --planted "a pause ..."               one planted bug; --replay replays it
 *
 * One line for each, and the steps of what failed. The last line is JSON; the exit status is 1 when a scenario failed or
 * a planted bug was not found.
 */
import { availableParallelism } from "node:os"
import { parseArgs } from "node:util"
import * as Explorer from "../src/testing/Explorer.ts"
import { type Done, type Job, run } from "./explore/job.ts"
import { type Planted, planted } from "./explore/planted.ts"
import { scenarios } from "./explore/scenarios/all.ts"
import type { Scenario } from "./explore/scenarios/Scenario.ts"

const fail = (problem: string): never => {
  console.error(`explore: ${problem}`)
  process.exit(2)
}

const read = () =>
  parseArgs({
    allowPositionals: true,
    options: {
      planted: { type: "string" },
      replay: { type: "string" },
      random: { type: "string" },
      seed: { type: "string", default: "1" }
    }
  })

const readOrFail = (): ReturnType<typeof read> => {
  try {
    return read()
  } catch (problem) {
    return fail(problem instanceof Error ? problem.message : String(problem))
  }
}

const { positionals, values } = readOrFail()

const integer = (option: string, text: string): number =>
  /^\d{1,9}$/.test(text) ? Number(text) : fail(`--${option} is an integer from 0 on, not "${text}"`)

/** What an option names, out of all that there is. */
const select = <A extends { readonly name: string }>(kind: string, all: ReadonlyArray<A>, name: string): A =>
  all.find((each) => each.name === name) ??
    fail(`there is no ${kind} "${name}", but:\n${all.map((each) => `  ${each.name}`).join("\n")}`)

const [name] = positionals
const seed = integer("seed", values.seed)
const chosenBug = values.planted === undefined ? undefined : select("planted bug", planted, values.planted)
const chosenScenario = name === undefined ? undefined : select("scenario", scenarios, name)
const isAll = chosenBug === undefined && chosenScenario === undefined
if (positionals.length > 1) fail(`one scenario at a time; put its name in quotes: "${positionals.join(" ")}"`)
if (isAll && values.replay !== undefined) fail("--replay needs the scenario or the planted bug that it is of")

const howTo = ({ random }: Scenario): Job["how"] => {
  if (values.replay !== undefined) return { _tag: "Replay", schedule: values.replay }
  const schedules = values.random === undefined ? random : integer("random", values.random)
  return schedules === undefined ? { _tag: "All" } : { _tag: "Random", seed, schedules }
}

/** Starts so many at a time, in order. */
const limited = (lanes: number) => {
  let turn: ReadonlyArray<Promise<unknown>> = Array.from({ length: lanes }, () => Promise.resolve())
  return (job: Job): Promise<Done> => {
    const [first, ...rest] = turn
    const done = (first ?? Promise.resolve()).then(() => run(job))
    // The next one follows this whether it fails or not.
    turn = [...rest, done.then(() => undefined, () => undefined)]
    return done
  }
}

const start = limited(Math.min(2, availableParallelism()))
const scenariosToRun = isAll
  ? scenarios
  : chosenBug === undefined && chosenScenario !== undefined
  ? [chosenScenario]
  : []
const bugsToFind = isAll ? planted : chosenBug === undefined ? [] : [chosenBug]

const runs = scenariosToRun.map((each) => [each, start({ name: each.name, how: howTo(each), edits: [] })] as const)
const hunts = bugsToFind.map((bug) => {
  const where = select("scenario", scenarios, bug.scenario)
  return [bug, start({ name: where.name, how: howTo(where), edits: bug.edits })] as const
})
// Each is waited for below; one that fails before its turn is no unhandled rejection.
for (const [, done] of [...runs, ...hunts]) done.catch(() => undefined)

const column = Math.max(...[...scenarios, ...planted].map((each) => each.name.length))
const line = (text: string, { report, seconds }: Done): string =>
  `${text.padEnd(column)}  ${String(report.schedules).padStart(6)} schedules  ${seconds.toFixed(1).padStart(5)} s`

const replayOf = (option: string, schedule: string): string =>
  `replay: npm run explore -- ${option} --replay "${schedule}"`

let schedules = 0
let failed = 0
let found = 0

for (const [each, done] of runs) {
  try {
    const result = await done
    schedules += result.report.schedules
    const { failure } = result.report
    console.log(line(each.name, result), failure === undefined ? "" : "FAILED")
    if (failure === undefined) continue
    failed++
    console.log(Explorer.format(failure).replace(/^replay: .*$/m, replayOf(`"${each.name}"`, failure.schedule)))
  } catch (problem) {
    failed++
    console.log(`${each.name}: FAILED, ${String(problem)}`)
  }
}

const tell = (bug: Planted, result: Done): void => {
  const { failure } = result.report
  if (failure === undefined) {
    console.log(line(bug.name, result), `NOT FOUND by "${bug.scenario}"`)
    return
  }
  found++
  console.log(line(bug.name, result), `found by "${bug.scenario}", schedule "${failure.schedule}"`)
  if (isAll) return
  console.log(Explorer.format(failure).replace(/^replay: .*$/m, replayOf(`--planted "${bug.name}"`, failure.schedule)))
}

for (const [bug, done] of hunts) {
  try {
    tell(bug, await done)
  } catch (problem) {
    // Not only not found: what was to be planted does not fit the sources any more.
    failed++
    console.log(`${bug.name}: FAILED, ${String(problem)}`)
  }
}

console.log(JSON.stringify({ scenarios: runs.length, schedules, planted: hunts.length, found, failed }))
process.exitCode = failed > 0 || found < hunts.length ? 1 : 0
