/**
 * Linux, from the kernel's first instruction to the shell's prompt, on Emulated with real time. The peer is the class
 * `V86` of the npm package v86 with the same core, kernel, initrd, command line and memory size. Each boot is a process
 * of its own.
 */
import { spawnSync } from "node:child_process"
import { join } from "node:path"
import { type Boot, hasGuest, obtainBios } from "./boot/files.ts"
import { type Figure, type Measurement, median, type Skipped } from "./harness.ts"

const PAIRS = 2
const DEADLINE_MS = 120_000

const boot = (program: string): Boot | Skipped => {
  const { signal, status, stderr, stdout } = spawnSync(process.execPath, [join(import.meta.dirname, "boot", program)], {
    encoding: "utf8",
    timeout: DEADLINE_MS
  })
  return status === 0
    ? JSON.parse(stdout) as Boot
    : { skipped: `boot/${program} ended with ${status ?? signal}: ${stderr.slice(-500)}` }
}

const isBoot = (each: Boot | Skipped): each is Boot => "wallS" in each

const run = (): Measurement | Skipped => {
  if (!hasGuest()) return { skipped: "there is no Linux guest: run npm run guest:linux" }
  const peerProblem = obtainBios()
  const ours: Array<Boot> = []
  const theirs: Array<Boot> = []
  for (let pair = 0; pair < PAIRS; pair++) {
    const our = boot("upcall.ts")
    if (!isBoot(our)) return our
    ours.push(our)
    if (peerProblem !== undefined) continue
    const their = boot("v86.ts")
    if (!isBoot(their)) return their
    theirs.push(their)
  }
  const wall = (boots: ReadonlyArray<Boot>) => boots.map(({ wallS }) => wallS)
  const cpu = (boots: ReadonlyArray<Boot>) => median(boots.map(({ threadCpuS }) => threadCpuS))
  const samples = wall(ours)
  const value = median(samples)
  if (peerProblem !== undefined) return { value, samples, details: { peerSkipped: peerProblem, cpuS: cpu(ours) } }
  return {
    value,
    peer: { name: "class V86 of npm v86", value: median(wall(theirs)) },
    best: { value: Math.min(...samples), peer: Math.min(...wall(theirs)) },
    samples,
    // The processor time of the guest's thread: what is left when other programs do not count.
    details: { cpuS: { value: cpu(ours), peer: cpu(theirs), ratio: cpu(ours) / cpu(theirs) } }
  }
}

export const figure: Figure = {
  metric: "emulated.linux_boot_s",
  unit: "s",
  aim: { of: "ratio", atMost: 1 },
  run: () => Promise.resolve(run())
}
