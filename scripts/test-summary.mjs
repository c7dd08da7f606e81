// Prints one line, `N passed, N failed, N skipped`, from the files that vitest's JSON reporter wrote. One that is empty
// or not there stands for tests that were not run.
import { existsSync, readFileSync } from "node:fs"

const summaryOf = (path) => {
  const text = existsSync(path) ? readFileSync(path, "utf8") : ""
  if (text === "") return { passed: 0, failed: 0, skipped: 0 }
  const report = JSON.parse(text)
  const count = (...states) =>
    report.testResults.flatMap((file) => file.assertionResults).filter((test) => states.includes(test.status)).length
  // A file that does not load has no tests to fail, and an error outside every test belongs to none of them.
  const broken = report.testResults.filter(
    (file) => file.status === "failed" && !file.assertionResults.some((test) => test.status === "failed")
  ).length
  return {
    passed: count("passed"),
    failed: Math.max(count("failed") + broken, report.success ? 0 : 1),
    skipped: count("pending", "skipped", "todo", "disabled")
  }
}

const summaries = process.argv.slice(2).map(summaryOf)
const sum = (name) => summaries.reduce((total, summary) => total + summary[name], 0)

process.stdout.write(`${sum("passed")} passed, ${sum("failed")} failed, ${sum("skipped")} skipped\n`)
