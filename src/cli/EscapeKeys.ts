/**
 * The keys that a terminal's user has for `upcall` itself, as a pure function of what was typed: everything but Ctrl-C
 * and Ctrl-A goes to the guest. Ctrl-A begins a command of two keys, as in QEMU's serial console.
 */

/** `Quit`: the user is done. `Interrupt`: Ctrl-C. `Help`: asks which keys there are. */
export type Action =
  | { readonly _tag: "Type"; readonly bytes: Uint8Array }
  | { readonly _tag: "Quit" }
  | { readonly _tag: "Interrupt" }
  | { readonly _tag: "Help" }

const CTRL_A = 0x01
const CTRL_C = 0x03
const key = (letter: string): number => letter.charCodeAt(0)

/** What Ctrl-A h prints. */
export const HELP = [
  "Ctrl-C         end the VM",
  "Ctrl-A x       end the VM",
  "Ctrl-A c       send Ctrl-C to the guest",
  "Ctrl-A Ctrl-A  send Ctrl-A to the guest (also Ctrl-A a)",
  "Ctrl-A h       show these keys"
].join("\n")

/** What was typed so far that matters: whether the last key was Ctrl-A. */
export interface State {
  readonly isEscaped: boolean
}

export const initial: State = { isEscaped: false }

/** Takes the next bytes of a terminal. Two-key commands may be cut between two calls. */
export const step = (state: State, typed: Uint8Array): readonly [State, ReadonlyArray<Action>] => {
  const actions: Array<Action> = []
  let bytes: Array<number> = []
  let { isEscaped } = state
  const flush = () => {
    if (bytes.length > 0) actions.push({ _tag: "Type", bytes: Uint8Array.from(bytes) })
    bytes = []
  }
  const act = (action: Action) => {
    flush()
    actions.push(action)
  }
  for (const byte of typed) {
    if (!isEscaped) {
      if (byte === CTRL_A) isEscaped = true
      else if (byte === CTRL_C) act({ _tag: "Interrupt" })
      else bytes.push(byte)
      continue
    }
    isEscaped = false
    switch (byte) {
      case CTRL_A:
      case key("a"):
        bytes.push(CTRL_A)
        break
      case key("c"):
        bytes.push(CTRL_C)
        break
      case CTRL_C:
        act({ _tag: "Interrupt" })
        break
      case key("x"):
        act({ _tag: "Quit" })
        break
      // Any other key: the user may not know them.
      default:
        act({ _tag: "Help" })
    }
  }
  flush()
  return [{ isEscaped }, actions]
}
