// Written by edgeopt app from the bundle's manifest; edgeopt app --update writes it anew.
package com.acme.vision

/** Element types of the model's inputs and outputs. */
public enum class ElementType {
    FLOAT32,
    FLOAT64,
    FLOAT16,
    INT64,
    INT32,
    INT8,
    UINT8,
    BOOL,
}

/**
 * An input or output of the model.
 *
 * @property name what the model itself calls it.
 * @property fileName what the model file calls it.
 * @property shape sizes of the axes; -1 where the size is only known when the model runs.
 */
public class TensorSpec internal constructor(
    public val name: String,
    internal val fileName: String,
    public val type: ElementType,
    private vararg val shape: Int,
) {
    /** A copy of the sizes of the axes. */
    public fun shape(): IntArray = shape.copyOf()
}

/** What is known of the model file. */
public object ModelSpec {
    /** The model file among the assets. */
    public const val ASSET: String = "edgeopt/tiny_net/model.pte"

    /** SHA-256 of the model file; it is checked whenever the model is loaded. */
    public const val SHA256: String = "72736fb9aa66608fa8892c46ca9710f2150eab2276fb05f14a040c455fc98f85"

    /** Size of the model file in bytes. */
    public const val SIZE_BYTES: Long = 27L

    /** Precision of the model file. */
    public const val PRECISION: String = "fp32"

    /** What runs the model file. */
    public const val RUNTIME: String = "executorch"

    /** The version of the runtime that the model file was made for and checked with. */
    public const val RUNTIME_VERSION: String = "1.5.1"

    /** Delegates that run operators of the model file, as the file says. */
    public const val DELEGATES: String = "XNNPACK"

    /** The device profile the file was made for. */
    public const val DEVICE: String = "Google Pixel 7"

    /** Threads that [TinyNet.Options] begins with: the fast cores of that profile, at most four. */
    public const val DEFAULT_THREADS: Int = 4

    /** The inputs, in order. */
    public val INPUTS: List<TensorSpec> = listOf(
        TensorSpec(
            "image",
            "input_0",
            ElementType.FLOAT32,
            1,
            3,
            8,
            8,
        ),
    )

    /** The outputs, in order. */
    public val OUTPUTS: List<TensorSpec> = listOf(
        TensorSpec(
            "logits",
            "output_0",
            ElementType.FLOAT32,
            1,
            3,
        ),
        TensorSpec(
            "mask",
            "output_1",
            ElementType.INT64,
            1,
            2,
        ),
    )
}
