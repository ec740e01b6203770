// Written by edgeopt app; edgeopt app --update writes it anew.
package com.acme.vision

/** Whether the runtime this app was built with can be trusted with a file made for another version. */
internal object RuntimeVersion {
    /**
     * Throws [ModelException] unless [built] has the same major version as [needed] and isn't older.
     *
     * A runtime loads files made for the same or an older minor version; the other way round isn't promised.
     */
    fun require(built: String, needed: String) {
        val (have, want) = parts(built) to parts(needed)
        if (have[0] != want[0] || have[1] < want[1]) {
            throw ModelException(
                "the model was made for ${ModelSpec.RUNTIME} $needed and the app is built with $built: " +
                    "set executorch = \"$needed\" in gradle/libs.versions.toml, or export the model again",
            )
        }
    }

    private fun parts(version: String): List<Int> {
        val numbers = version.split('.', '-', '+').map { it.toIntOrNull() ?: 0 }
        return numbers + listOf(0, 0)
    }
}
