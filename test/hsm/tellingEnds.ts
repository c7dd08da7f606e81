import type { NodeInsideOptions } from "./boot.ts"
import type { GuestEnd } from "./transport/Recorder.ts"

/** What makes the host tell a program inside how its guests end: see inside/toldEnds.ts. */
export const tellingEnds = (): Required<Pick<NodeInsideOptions, "onEnd">> & {
  readonly onLine: NonNullable<NodeInsideOptions["onLine"]>
} => {
  let say: (text: string) => void = () => undefined
  return {
    // The kernel says something long before any guest runs.
    onLine: (_source, _line, sayInside) => {
      say = sayInside
    },
    onEnd: (end: GuestEnd) => say(`${JSON.stringify(end)}\n`)
  }
}
