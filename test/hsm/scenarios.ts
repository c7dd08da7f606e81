/**
 * Runs the scenarios of clients/scenarios.c, each in a machine of its own, and reads what they tell.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { boot, type BootOptions, type BootResult } from "./boot.ts"
import { artifacts } from "./transport/Artifacts.ts"

const Step = Schema.Struct({ step: Schema.String, result: Schema.Int, errno: Schema.Int })
const Written = Schema.Struct({ vm: Schema.Int, written: Schema.String })
const Line = Schema.fromJsonString(Schema.Union([Step, Written, Schema.Record(Schema.String, Schema.Number)]))
const decodeLine = Schema.decodeUnknownSync(Line)

export type Step = typeof Step.Type

/**
 * - `steps`: each ioctl that the client reports, in order.
 * - `written`: per VM, what its guest wrote to the port.
 * - `facts`: numbers that the scenario found.
 */
export interface ScenarioResult extends BootResult {
  readonly steps: ReadonlyArray<Step>
  readonly written: ReadonlyArray<string>
  readonly facts: Readonly<Record<string, number>>
}

const read = (result: BootResult): ScenarioResult => {
  const steps: Array<Step> = []
  const written: Array<string> = []
  const facts: Record<string, number> = {}
  for (const text of result.output) {
    const line = decodeLine(text)
    if ("step" in line && typeof line.step === "string") steps.push(line as Step)
    else if ("written" in line) written.push(String(line.written))
    else Object.assign(facts, line)
  }
  return { ...result, steps, written, facts }
}

/** Runs one scenario alone. */
export const scenario = (name: string, options: Omit<BootOptions, "inside"> = {}) =>
  Effect.flatMap(artifacts, ({ scenarios }) => Effect.map(boot({ ...options, inside: [scenarios, name] }), read))

/** Runs scenarios one after the other in one machine. */
export const inTurn = (names: ReadonlyArray<string>, options: Omit<BootOptions, "inside"> = {}) =>
  Effect.flatMap(
    artifacts,
    ({ scenarios }) =>
      Effect.map(boot({ ...options, inside: names.map((name) => `"${scenarios}" ${name}`).join("\n") }), read)
  )

/** Kills a client that holds a request, then runs `then`. */
export const killedWhileRunning = (then: string, options: Omit<BootOptions, "inside" | "onLine"> = {}) =>
  Effect.flatMap(artifacts, ({ scenarios }) =>
    Effect.map(
      boot({
        ...options,
        inside: [
          `"${scenarios}" hold & pid=$!`,
          "read go",
          "kill -KILL $pid",
          "wait $pid",
          `exec "${scenarios}" ${then}`
        ].join("\n"),
        onLine: (_, line, say) => {
          if (line.startsWith("{\"held\"")) say("go\n")
        }
      }),
      read
    ))

/** The steps that did not succeed, with the errno of each. */
export const refusals = ({ steps }: ScenarioResult): Record<string, number> =>
  Object.fromEntries(steps.filter(({ result }) => result < 0).map(({ errno, step }) => [step, errno]))

/** Hypercalls in order, by name, with the result where it is not 0; runs of the same one as one. */
export const hypercalls = ({ calls }: BootResult): string => {
  const names = calls.map(({ call, raw, result }) =>
    `${call?._tag ?? `0x${raw.id.toString(16)}`}${result === 0 ? "" : `=${result}`}`
  )
  return names.filter((name, i) => name !== names[i - 1]).join(" ")
}
