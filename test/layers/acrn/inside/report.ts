/** How programs that run on the real driver tell what they saw: a line of JSON each. */
export const report = (what: string, value: unknown): void => {
  console.log(JSON.stringify({ what, value }, (_, each) => typeof each === "bigint" ? Number(each) : each))
}
