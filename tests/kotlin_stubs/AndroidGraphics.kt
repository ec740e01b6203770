package android.graphics

/** A picture of one colour. */
class Bitmap(val width: Int, val height: Int, private val argb: Int) {
    fun getPixels(pixels: IntArray, offset: Int, stride: Int, x: Int, y: Int, width: Int, height: Int) {
        require(x + width <= this.width && y + height <= this.height)
        for (row in 0 until height) pixels.fill(argb, offset + row * stride, offset + row * stride + width)
    }

    companion object {
        @JvmStatic
        fun createScaledBitmap(source: Bitmap, width: Int, height: Int, filter: Boolean): Bitmap =
            Bitmap(width, height, source.argb.also { check(filter) })
    }
}
