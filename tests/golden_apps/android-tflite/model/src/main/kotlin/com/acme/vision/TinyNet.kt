// Written by edgeopt app from the bundle's manifest; edgeopt app --update writes it anew.
package com.acme.vision

import android.content.Context
import android.graphics.Bitmap
import java.io.Closeable
import java.nio.FloatBuffer
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.withContext

/** What runs the model. */
public enum class Delegate {
    /** The CPU, with the kernels the model was checked with. */
    CPU,

    /** The GPU. Where it can't, the CPU runs the model and [Placement.fallback] says why. */
    GPU,
}

/**
 * Where the model runs.
 *
 * @property delegates what runs its operators.
 * @property threads threads the CPU kernels were given.
 * @property fallback why it doesn't run where it was asked to; null when it does.
 */
public class Placement internal constructor(
    public val delegates: String,
    public val threads: Int,
    public val fallback: String?,
)

/**
 * Tiny Net: fp32, made for Google Pixel 7.
 *
 * Load it once with [load], off the main thread; [run] and [runAsync] may be called from any thread and run one after
 * the other. [close] gives the memory back.
 */
public class TinyNet private constructor(
    private val runtime: ModelRuntime,
    private val labels: List<String>,
) : Closeable {
    /**
     * How to run.
     *
     * @property threads CPU threads; small models are often faster with one.
     * @property delegate what should run the model.
     */
    public class Options(
        public val threads: Int = ModelSpec.DEFAULT_THREADS,
        public val delegate: Delegate = Delegate.CPU,
    ) {
        init {
            require(threads >= 1) { "threads must be 1 or more, not $threads" }
        }
    }

    /**
     * What the model computed.
     *
     * @property logits logits: float32[1, 3], flattened.
     * @property mask mask: int64[1, 2], flattened.
     */
    public class Outputs internal constructor(
        public val logits: FloatArray,
        public val mask: LongArray,
    )

    /** Where the model runs, and why not elsewhere. */
    public val placement: Placement
        get() = this.runtime.placement

    /**
     * Runs the model; blocks, so call it off the main thread or use [runAsync].
     *
     * Throws [IllegalArgumentException] for an input of another size and [ModelException] when the runtime fails.
     *
     * @param image image: float32[1, 3, 8, 8], flattened.
     */
    public fun run(
        image: FloatArray,
    ): Outputs {
        require(image.size.toLong() == 192L) {
            "image has ${image.size} values, the model takes float32[1, 3, 8, 8]"
        }
        return this.execute(
            listOf(
                image,
            ),
            listOf(
                longArrayOf(1L, 3L, 8L, 8L),
            ),
        )
    }

    /**
     * Runs the model on direct buffers in native byte order (LiteRT's Kotlin classes copy them).
     *
     * Sizes as in the other [run]. A buffer is read from its beginning to its capacity.
     */
    public fun run(
        image: FloatBuffer,
    ): Outputs {
        require(image.isDirect && image.capacity().toLong() == 192L) {
            "image must be a direct buffer for float32[1, 3, 8, 8]"
        }
        return this.execute(
            listOf(
                image,
            ),
            listOf(
                longArrayOf(1L, 3L, 8L, 8L),
            ),
        )
    }

    /** [run] on a background thread. */
    public suspend fun runAsync(
        image: FloatArray,
    ): Outputs = withContext(Dispatchers.Default) {
        run(
            image,
        )
    }

    /**
     * The input image from a picture: scaled to 8 x 8 pixels, then
     * (value / 255 - mean) / std with the figures that were given at export.
     */
    public fun inputOf(picture: Bitmap): FloatArray {
        val scaled = Bitmap.createScaledBitmap(picture, Pixels.WIDTH, Pixels.HEIGHT, true)
        val argb = IntArray(Pixels.WIDTH * Pixels.HEIGHT)
        scaled.getPixels(argb, 0, Pixels.WIDTH, 0, 0, Pixels.WIDTH, Pixels.HEIGHT)
        return Pixels.toInput(argb)
    }

    /** The [count] classes with the highest scores in the first row of logits. */
    public fun topClasses(outputs: Outputs, count: Int = 5): List<Classification> =
        Labels.top(outputs.logits, this.labels, count)

    /** Frees the model. It can't be used afterwards. */
    @Synchronized
    override fun close() {
        this.runtime.close()
    }

    @Synchronized
    private fun execute(data: List<Any>, shapes: List<LongArray>): Outputs {
        val values = this.runtime.run(data, shapes)
        return Outputs(
            values[0] as FloatArray,
            values[1] as LongArray,
        )
    }

    /** Loads the model. */
    public companion object {
        /**
         * Checks the model file and the runtime's version and loads the model, on a background thread.
         *
         * Throws [ModelException] when the file isn't the one that was exported, the runtime is too old for it, or
         * the runtime refuses it.
         */
        public suspend fun load(
            context: Context,
            options: Options = Options(),
        ): TinyNet = withContext(Dispatchers.IO) {
            loadBlocking(context, options)
        }

        /** [load] on this thread, for callers without coroutines. Never on the main thread. */
        public fun loadBlocking(
            context: Context,
            options: Options = Options(),
        ): TinyNet {
            return TinyNet(ModelRuntime.load(context, options), Labels.load(context))
        }
    }
}
