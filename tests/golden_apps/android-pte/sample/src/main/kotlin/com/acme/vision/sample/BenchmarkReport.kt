package com.acme.vision.sample

import java.util.Locale

/**
 * What one benchmark found, in the JSON line of edgeopt's command-line runners, with `"where": "app"`.
 *
 * @property runsMs each timed run, in order: whoever reads them makes the statistics.
 */
public class BenchmarkReport(
    public val runtime: String,
    public val runtimeVersion: String,
    public val model: String,
    public val threads: Int,
    public val delegates: String,
    public val fallback: String?,
    public val loadMs: Double,
    public val firstInferenceMs: Double,
    public val runsMs: List<Double>,
    public val peakMemoryKib: Long?,
) {
    /** One line of JSON. */
    public fun toJson(): String = listOf(
        "runner" to "1",
        "where" to quoted("app"),
        "runtime" to quoted(runtime),
        "runtime_version" to quoted(runtimeVersion),
        "model_sha256" to quoted(model),
        "threads" to threads.toString(),
        "delegates" to quoted(delegates),
        "fallback" to (fallback?.let(::quoted) ?: "null"),
        "load_ms" to number(loadMs),
        "first_inference_ms" to number(firstInferenceMs),
        "runs_ms" to runsMs.joinToString(", ", "[", "]", transform = ::number),
        "peak_memory_kib" to (peakMemoryKib?.toString() ?: "null"),
    ).joinToString(", ", "{", "}") { (key, value) -> "\"$key\": $value" }

    private fun number(value: Double): String = String.format(Locale.ROOT, "%.4f", value)

    private fun quoted(text: String): String = buildString {
        append('"')
        for (c in text) {
            when {
                c == '"' || c == '\\' -> append('\\').append(c)
                c < ' ' -> append(String.format(Locale.ROOT, "\\u%04x", c.code))
                else -> append(c)
            }
        }
        append('"')
    }
}
