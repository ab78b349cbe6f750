# frozen_string_literal: true

require 'json'

module Garden
  class Bed
    attr_reader :name, :plants

    def initialize(name)
      @name = name
      @plants = []
    end

    def plant(species, count: 1)
      raise ArgumentError, 'count must be positive' unless count.positive?

      count.times { @plants << species }
      self
    end

    def to_json(*args)
      { name: @name, plants: @plants.tally }.to_json(*args)
    end
  end
end

bed = Garden::Bed.new('south wall').plant(:tomato, count: 3).plant(:basil)
puts bed.to_json
bed.plants.uniq.each { |species| puts "water the #{species}" }
