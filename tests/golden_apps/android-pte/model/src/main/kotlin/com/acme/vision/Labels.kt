// Written by edgeopt app from the labels that were given at export; edgeopt app --update writes it anew.
package com.acme.vision

import android.content.Context

/**
 * A class and its score, as the model gives it (no softmax is applied).
 *
 * @property index the class's place in the output.
 */
public class Classification internal constructor(
    public val index: Int,
    public val label: String,
    public val score: Float,
)

internal object Labels {
    private const val ASSET = "edgeopt/tiny_net/labels.txt"

    fun load(context: Context): List<String> = context.assets.open(ASSET).bufferedReader().use { it.readLines() }

    /** The [count] highest of the first row of [scores], highest first. */
    fun top(scores: FloatArray, labels: List<String>, count: Int): List<Classification> {
        return labels.indices
            .sortedByDescending { scores[it] }
            .take(count)
            .map { Classification(it, labels[it], scores[it]) }
    }
}
