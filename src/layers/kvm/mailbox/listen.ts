/**
 * Takes the steps of a VM's listener on the dispatching thread, whose event loop goes on wherever they say that it sleeps.
 */
import { ListenerNext, type ListenerSide } from "./ListenerSide.ts"
import { pause } from "./pause.ts"
import { Bell, BELL_WORD } from "./words.ts"

export interface ListenOptions {
  readonly words: Int32Array<SharedArrayBuffer>
  readonly side: ListenerSide
  /** A vCPU was given back; it must not throw. */
  readonly onBack: (vcpu: number, result: number) => void
  /** Calls it in a later turn of the event loop. */
  readonly defer: (turn: () => void) => void
}

// The rest of the event loop gets its turn after so many, however fast the next ones come.
const MOST_BACK_IN_A_TURN = 64

/** Begins to listen; the result ends it. A promise that waits here keeps no process alive: its threads have to. */
export const listen = ({ defer, onBack, side, words }: ListenOptions): () => void => {
  let isOver = false
  const turn = () => {
    for (let left = MOST_BACK_IN_A_TURN; left > 0;) {
      if (isOver) return
      switch (side.step()) {
        case ListenerNext.Step:
          break
        case ListenerNext.Spin:
          pause()
          break
        case ListenerNext.Back:
          onBack(side.vcpu, side.result)
          left--
          break
        case ListenerNext.Sleep: {
          const wait = Atomics.waitAsync(words, BELL_WORD, Bell.Asleep)
          if (!wait.async) break
          void wait.value.then(turn)
          return
        }
      }
    }
    defer(turn)
  }
  turn()
  return () => {
    isOver = true
    Atomics.store(words, BELL_WORD, Bell.Rung)
    Atomics.notify(words, BELL_WORD)
  }
}
