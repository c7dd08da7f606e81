/**
 * A schedule as text: what was chosen at each point that had a choice, in order. One character each, 0 to 9 and a to z;
 * a choice above that stands in parentheses.
 */

const DIGIT = 36

export const print = (choices: ReadonlyArray<number>): string =>
  choices.map((choice) => choice < DIGIT ? choice.toString(DIGIT) : `(${choice})`).join("")

/** The choices of a schedule; `undefined` when the text is none. */
export const parse = (schedule: string): ReadonlyArray<number> | undefined => {
  if (!/^([0-9a-z]|\(\d+\))*$/.test(schedule)) return undefined
  return Array.from(
    schedule.matchAll(/([0-9a-z])|\((\d+)\)/g),
    ([, digit, number]) => digit === undefined ? Number(number) : Number.parseInt(digit, DIGIT)
  )
}

/** Whether `a` comes before `b` in the order of the depth-first search. */
export const isBefore = (a: ReadonlyArray<number>, b: ReadonlyArray<number>): boolean => {
  for (const [i, choice] of a.entries()) {
    const other = b[i]
    if (other === undefined) return false
    if (choice !== other) return choice < other
  }
  return a.length < b.length
}
