/**
 * What the dispatching thread and the threads of a VM's vCPUs say to each other: words of shared memory.
 *
 * A vCPU changes hands. Its TURN says whose it is, and only whoever has it writes the word, up to one exception: a runner
 * that waits for its turn marks that it sleeps. So there is nothing to count and nothing to clear: what one side waits
 * for cannot come and go again while it does not look.
 */

/**
 * - `Dispatcher`: the dispatcher's; the runner is awake, or there is none yet. Where it all begins.
 * - `DispatcherWhileAsleep`: the dispatcher's; the runner sleeps, or is about to.
 * - `Runner`: the runner's, which enters the guest and gives it back after the exit.
 * - `Leave`: the runner shall go for good.
 * - `Gone`: the runner went, and touches nothing of the VM any more.
 */
export const Turn = { Dispatcher: 0, DispatcherWhileAsleep: 1, Runner: 2, Leave: 3, Gone: 4 } as const
export type Turn = typeof Turn[keyof typeof Turn]

/**
 * - `Quiet`: the dispatcher has heard everything, and is awake.
 * - `Asleep`: likewise, and it sleeps, or is about to.
 * - `Rung`: a turn was given back.
 */
export const Bell = { Quiet: 0, Asleep: 1, Rung: 2 } as const
export type Bell = typeof Bell[keyof typeof Bell]

// Two lines of a cache, of which processors often fetch both: what is this far apart is never in one of them together,
// wherever the buffer begins.
const STRIDE = 128 / 4

/** The bell of the VM. */
export const BELL_WORD = 0

/** Whose turn it is with this vCPU. */
export const turnWord = (vcpu: number): number => (1 + vcpu) * STRIDE

/** What entering the guest gave; the runner's to write, before it gives its turn back. */
export const resultWord = (vcpu: number): number => turnWord(vcpu) + 1

/** The words of a VM. */
export const makeWords = (vcpus: number): Int32Array<SharedArrayBuffer> =>
  new Int32Array(new SharedArrayBuffer(turnWord(vcpus) * 4))
