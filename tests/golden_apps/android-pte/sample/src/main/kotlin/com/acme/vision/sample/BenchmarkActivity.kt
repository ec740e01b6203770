package com.acme.vision.sample

import android.app.Activity
import android.os.Bundle
import android.util.Log
import android.widget.TextView
import com.acme.vision.ModelException
import com.acme.vision.ModelSpec
import com.acme.vision.TinyNet
import java.io.File
import java.io.IOException
import java.util.Random
import kotlin.concurrent.thread

/**
 * Measures the model inside an app process and prints one line of JSON, on the screen and in the log.
 *
 * Figures in an app differ from those in a shell: other cores, other clocks, a garbage collector beside.
 *
 *     adb shell am start -W -n com.acme.vision.sample/.BenchmarkActivity --ei threads 2 --ei runs 100
 *     adb logcat -d -v raw -s edgeopt-bench
 */
public class BenchmarkActivity : Activity() {
    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        val view = TextView(this)
        view.setTextIsSelectable(true)
        setContentView(view)
        thread(name = "benchmark") {
            val line = try {
                measure().toJson()
            } catch (error: ModelException) {
                "error: ${error.message}"
            }
            Log.i(TAG, line)
            runOnUiThread { view.text = line }
        }
    }

    private fun measure(): BenchmarkReport {
        val warmup = intent.getIntExtra("warmup", 10)
        // A line of the log holds no more than that.
        val runs = intent.getIntExtra("runs", 100).coerceIn(1, 400)
        val threads = intent.getIntExtra("threads", ModelSpec.DEFAULT_THREADS)
        val inputs = Inputs(Random(0))
        val started = System.nanoTime()
        TinyNet.loadBlocking(this, TinyNet.Options(threads = threads)).use { model ->
            val loadMs = since(started)
            val times = List(1 + warmup + runs) {
                val begin = System.nanoTime()
                model.run(
                    inputs.image,
                )
                since(begin)
            }
            return BenchmarkReport(
                runtime = ModelSpec.RUNTIME,
                runtimeVersion = ModelSpec.RUNTIME_VERSION,
                model = ModelSpec.SHA256,
                threads = model.placement.threads,
                delegates = model.placement.delegates,
                fallback = model.placement.fallback,
                loadMs = loadMs,
                firstInferenceMs = times.first(),
                runsMs = times.takeLast(runs),
                peakMemoryKib = peakMemoryKib(),
            )
        }
    }

    /** Values for a benchmark: the cost of a network hardly depends on them. */
    private class Inputs(random: Random) {
        val image = FloatArray(192) { random.nextGaussian().toFloat() }
    }

    private fun since(nanos: Long): Double = (System.nanoTime() - nanos) / 1e6

    private fun peakMemoryKib(): Long? = try {
        File("/proc/self/status").readLines()
            .firstOrNull { it.startsWith("VmHWM:") }
            ?.filter(Char::isDigit)
            ?.toLongOrNull()
    } catch (_: IOException) {
        null
    }

    private companion object {
        const val TAG = "edgeopt-bench"
    }
}
