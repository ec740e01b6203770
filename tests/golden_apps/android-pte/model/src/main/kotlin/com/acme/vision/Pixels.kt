// Written by edgeopt app from the mean and std that were given at export; edgeopt app --update writes it anew.
package com.acme.vision

/** Pixels as the model was trained on them: (value / 255 - mean) / std, one plane after the other. */
internal object Pixels {
    const val WIDTH = 8
    const val HEIGHT = 8
    private const val CHANNELS = 3
    private val MEAN = floatArrayOf(0.485f, 0.456f, 0.406f)
    private val STD = floatArrayOf(0.229f, 0.224f, 0.225f)

    /**
     * Turns ARGB pixels, row by row, into the input.
     *
     * @param argb [WIDTH] x [HEIGHT] pixels as `Bitmap.getPixels` gives them; alpha is ignored.
     * @return [CHANNELS] planes of [HEIGHT] x [WIDTH] values: red, green, blue.
     */
    fun toInput(argb: IntArray): FloatArray {
        val plane = WIDTH * HEIGHT
        require(argb.size == plane) { "got ${argb.size} pixels, the model takes $plane" }
        val input = FloatArray(CHANNELS * plane)
        for (pixel in argb.indices) {
            for (channel in 0 until CHANNELS) {
                val value = argb[pixel] shr (16 - 8 * channel) and 0xff
                input[channel * plane + pixel] = (value / 255f - MEAN[channel]) / STD[channel]
            }
        }
        return input
    }
}
